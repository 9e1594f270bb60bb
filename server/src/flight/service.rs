//! The gRPC service: one short method per call; each identifies the caller, hands on, and counts.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use trireme_exec::{ErrorClass, QueryError};

use super::command::{Command, from_descriptor};
use super::front::Front;
use super::handlers::{actions, metadata, prepared, put, statement};
use super::identity::{Caller, identify};
use super::status::status;
use super::stream::BatchResults;
use super::ticket::{Redeem, redeem};
use crate::auth::Credentials;
use crate::session::Session;

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Flight SQL over a [`Front`].
#[derive(Clone)]
pub struct TriremeService {
    front: Arc<Front>,
}

fn one<T: Send + 'static>(message: T) -> Answer<T> {
    Box::pin(futures::stream::iter([Ok(message)]))
}

impl TriremeService {
    /// The service.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    async fn caller<T: Sync>(&self, method: &str, request: &Request<T>) -> Result<Caller, Status> {
        self.front.metrics.requests_total.with_label_values(&[method]).inc();
        let front = &self.front;
        let caller = identify(
            front.authenticator.as_ref(),
            &front.metrics,
            request.metadata(),
            request.extensions(),
        )
        .await;
        caller.inspect_err(|refused| self.count(refused))
    }

    fn session(&self, caller: &Caller) -> Result<Arc<Session>, Status> {
        self.checked(caller.session(&self.front.sessions))
    }

    fn checked<T>(&self, result: Result<T, QueryError>) -> Result<T, Status> {
        result.map_err(|error| {
            let refused = status(&error);
            self.count(&refused);
            refused
        })
    }

    fn count(&self, refused: &Status) {
        self.front
            .metrics
            .errors_total
            .with_label_values(&[&format!("{:?}", refused.code())])
            .inc();
    }

    async fn flight_info(&self, session: &Session, descriptor: FlightDescriptor) -> Result<FlightInfo, QueryError> {
        let front = &self.front;
        match from_descriptor(&descriptor)? {
            Command::StatementQuery { sql } | Command::StatementUpdate { sql } => {
                statement::flight_info(front, session, &sql, Vec::new(), descriptor).await
            }
            Command::PreparedQuery { handle } | Command::PreparedUpdate { handle } => {
                let (prepared, parameters) = prepared::bound(session, &handle)?;
                statement::flight_info(front, session, &prepared.sql, parameters, descriptor).await
            }
            Command::Metadata(command) => metadata::flight_info(&command, descriptor),
            Command::StatementTicket { .. } => {
                Err(QueryError::invalid("this is a ticket").with_hint("redeem it with DoGet"))
            }
        }
    }

    async fn schema(
        &self,
        session: &Session,
        descriptor: &FlightDescriptor,
    ) -> Result<arrow::datatypes::SchemaRef, QueryError> {
        let front = &self.front;
        match from_descriptor(descriptor)? {
            Command::StatementQuery { sql } | Command::StatementUpdate { sql } => {
                front.check_statement(&sql)?;
                Ok(front.engine.describe(&session.spec(), &sql).await?.schema)
            }
            Command::PreparedQuery { handle } | Command::PreparedUpdate { handle } => {
                Ok(Arc::clone(&session.prepared(&handle)?.description.schema))
            }
            Command::Metadata(command) => Ok(metadata::schema(&command)),
            Command::StatementTicket { .. } => {
                Err(QueryError::invalid("this is a ticket").with_hint("redeem it with DoGet"))
            }
        }
    }

    async fn get(&self, caller: &Caller, ticket: &Ticket) -> Result<BatchResults, QueryError> {
        match redeem(ticket)? {
            Redeem::Query(query_id) => statement::fetch(&self.front, &caller.user, &query_id).await,
            Redeem::Metadata(command) => {
                let batch = metadata::answer(&self.front, command).await?;
                Ok(BatchResults::one(
                    batch,
                    self.front.limits.batch_bytes_max,
                    self.front.metrics.clone(),
                ))
            }
        }
    }

    /// DoGet, before it is encoded.
    ///
    /// # Errors
    /// Whatever the caller, the ticket or the start of the query is refused for.
    pub async fn batches(&self, request: Request<Ticket>) -> Result<BatchResults, Status> {
        let caller = self.caller("DoGet", &request).await?;
        let mut results = self.checked(self.get(&caller, &request.into_inner()).await)?;
        let counter = self.clone();
        let counted = results.batches.inspect(move |item| {
            if let Err(FlightError::Tonic(refused)) = item {
                counter.count(refused);
            }
        });
        results.batches = Box::pin(counted);
        Ok(results)
    }

    /// Checks a login; gives the bearer token for later calls. Without users, the token only names the session.
    async fn login(&self, header: Option<&str>) -> Result<String, Status> {
        let Some(authenticator) = &self.front.authenticator else {
            return Ok(format!("session-{}", uuid::Uuid::new_v4().simple()));
        };
        let identity = authenticator.authorize(header).await.map_err(|error| {
            self.front
                .metrics
                .auth_failures_total
                .with_label_values(&[error.reason()])
                .inc();
            Status::unauthenticated(format!("{error}\nhint: {}", error.hint()))
        })?;
        match header.map(Credentials::parse) {
            Some(Ok(Credentials::Bearer(token))) => Ok(token),
            _ => Ok(authenticator.issue(&identity).expose().to_owned()),
        }
    }
}

#[tonic::async_trait]
impl FlightService for TriremeService {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.front
            .metrics
            .requests_total
            .with_label_values(&["Handshake"])
            .inc();
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = self.login(header).await.inspect_err(|refused| self.count(refused))?;
        let message = HandshakeResponse {
            protocol_version: 0,
            payload: token.clone().into_bytes().into(),
        };
        let mut response = Response::new(one(message));
        let bearer = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::internal("the token is no header value"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.caller("ListFlights", &request).await?;
        // Flight SQL lists tables by its metadata commands; there are no other flights.
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller("GetFlightInfo", &request).await?;
        let session = self.session(&caller)?;
        let info = self.checked(self.flight_info(&session, request.into_inner()).await)?;
        Ok(caller.respond(info, Some(&session)))
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller("PollFlightInfo", &request).await?;
        let session = self.session(&caller)?;
        let info = self.checked(self.flight_info(&session, request.into_inner()).await)?;
        // The result is streamed by DoGet, so the first answer is the last: no descriptor to poll again with.
        let poll = PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        };
        Ok(caller.respond(poll, Some(&session)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller("GetSchema", &request).await?;
        let session = self.session(&caller)?;
        let schema = self.checked(self.schema(&session, &request.into_inner()).await)?;
        let schema = self.checked(statement::schema_bytes(&schema))?;
        Ok(caller.respond(SchemaResult { schema }, Some(&session)))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let results = self.batches(request).await?;
        Ok(Response::new(results.into_flight_data()?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller("DoPut", &request).await?;
        let session = self.session(&caller)?;
        let opened = self.checked(put::open(request.into_inner()).await)?;
        let result = self.checked(put::run(&self.front, &session, opened).await)?;
        let answer: Self::DoPutStream = one(result);
        Ok(caller.respond(answer, Some(&session)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.caller("DoAction", &request).await?;
        let body = self.checked(actions::run(&self.front, &caller, request.into_inner()).await)?;
        let results = body.into_iter().map(|body| Ok(arrow_flight::Result { body }));
        let answer: Self::DoActionStream = Box::pin(futures::stream::iter(results.collect::<Vec<_>>()));
        let session = caller.existing(&self.front.sessions);
        Ok(caller.respond(answer, session.as_deref()))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.caller("ListActions", &request).await?;
        let actions: Vec<_> = actions::list().into_iter().map(Ok).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(actions))))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.caller("DoExchange", &request).await?;
        let error = QueryError::new(ErrorClass::Unsupported, "DoExchange is not part of Flight SQL");
        self.checked(Err(error))
    }
}
