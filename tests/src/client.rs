//! A thin Flight SQL client that shows what a convenient one hides: gRPC statuses, raw tickets, stream schemas.
//!
//! Every result it reads is checked for the promises made to all clients: the stream's schema equals the FlightInfo's
//! (names, types, nullability), there is at least one batch, no view or dictionary type, no null where none is announced.

use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, IpcMessage, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Larger than any message of the tests; the default of 4 MiB is what the server must stay below by itself.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// One connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) raw: FlightServiceClient<Channel>,
    /// Sent as the `authorization` header when set.
    pub(crate) authorization: Option<String>,
}

/// A whole result.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) info: FlightInfo,
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

/// What a server gave for a prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) handle: prost::bytes::Bytes,
    pub(crate) dataset_schema: Schema,
    pub(crate) parameter_schema: Schema,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(Endpoint::from_shared(format!("http://{address}")).unwrap()).await
    }

    pub(crate) async fn over(endpoint: Endpoint) -> Self {
        let channel = endpoint
            .connect_timeout(Duration::from_secs(60))
            .connect()
            .await
            .unwrap();
        let raw = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
        Self {
            raw,
            authorization: None,
        }
    }

    /// `message` as a request with this connection's headers.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    }

    pub(crate) async fn info<C: ProstMessageExt>(&mut self, command: C) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.request(descriptor);
        Ok(self.raw.get_flight_info(request).await?.into_inner())
    }

    pub(crate) async fn statement(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.info(CommandStatementQuery {
            query: sql.to_owned(),
            transaction_id: None,
        })
        .await
    }

    /// Schema (if the stream has one) and batches behind one ticket.
    pub(crate) async fn fetch(&mut self, ticket: Ticket) -> Result<(Option<SchemaRef>, Vec<RecordBatch>), Status> {
        let request = self.request(ticket);
        let messages = self.raw.do_get(request).await?.into_inner();
        let mut stream = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(status)?);
        }
        Ok((stream.schema().cloned(), batches))
    }

    /// A statement's whole result, checked.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Answer, Status> {
        let info = self.statement(sql).await?;
        self.read(info).await
    }

    /// A command's whole result, checked.
    pub(crate) async fn command<C: ProstMessageExt>(&mut self, command: C) -> Result<Answer, Status> {
        let info = self.info(command).await?;
        self.read(info).await
    }

    /// Reads all endpoints of `info` and checks what every client may rely on.
    pub(crate) async fn read(&mut self, info: FlightInfo) -> Result<Answer, Status> {
        let schema = info.clone().try_decode_schema().expect("a FlightInfo carries a schema");
        assert!(!info.endpoint.is_empty(), "a FlightInfo names at least one endpoint");
        let mut batches = Vec::new();
        for endpoint in &info.endpoint {
            let locations: Vec<_> = endpoint.location.iter().map(|location| location.uri.as_str()).collect();
            assert!(
                !locations.contains(&""),
                "an empty location is not understood by ADBC and Java"
            );
            let (stream_schema, mut read) = self.fetch(endpoint.ticket.clone().unwrap()).await?;
            check_same(
                &schema,
                &stream_schema.expect("a stream carries a schema, even an empty one"),
            );
            assert!(
                !read.is_empty(),
                "a stream carries at least one batch, even an empty one"
            );
            batches.append(&mut read);
        }
        check_honest(&schema, &batches);
        Ok(Answer {
            info,
            schema: SchemaRef::new(schema),
            batches,
        })
    }

    /// Rows changed by a statement sent as an update.
    pub(crate) async fn update(&mut self, sql: &str) -> Result<i64, Status> {
        let command = CommandStatementUpdate {
            query: sql.to_owned(),
            transaction_id: None,
        };
        self.put_update(command, Vec::new()).await
    }

    async fn put_update<C: ProstMessageExt>(&mut self, command: C, data: Vec<FlightData>) -> Result<i64, Status> {
        let results = self.put(command, data).await?;
        let result = results.first().ok_or_else(|| Status::internal("no PutResult"))?;
        let decoded = DoPutUpdateResult::decode(result.clone()).expect("a DoPutUpdateResult");
        Ok(decoded.record_count)
    }

    /// Application metadata of all PutResults of a DoPut whose first message carries `command`.
    pub(crate) async fn put<C: ProstMessageExt>(
        &mut self,
        command: C,
        mut data: Vec<FlightData>,
    ) -> Result<Vec<prost::bytes::Bytes>, Status> {
        if data.is_empty() {
            data.push(FlightData::default());
        }
        data[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let request = self.request(futures::stream::iter(data));
        let results: Vec<_> = self.raw.do_put(request).await?.into_inner().try_collect().await?;
        Ok(results.into_iter().map(|result| result.app_metadata).collect())
    }

    /// The results of an action.
    pub(crate) async fn action(&mut self, kind: &str, body: Vec<u8>) -> Result<Vec<prost::bytes::Bytes>, Status> {
        let request = self.request(Action {
            r#type: kind.to_owned(),
            body: body.into(),
        });
        let results: Vec<_> = self.raw.do_action(request).await?.into_inner().try_collect().await?;
        Ok(results.into_iter().map(|result| result.body).collect())
    }

    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Status> {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.to_owned(),
            transaction_id: None,
        };
        let results = self
            .action("CreatePreparedStatement", request.as_any().encode_to_vec())
            .await?;
        let any = Any::decode(results[0].clone()).unwrap();
        let result: ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
        Ok(Prepared {
            handle: result.prepared_statement_handle,
            dataset_schema: schema_of(result.dataset_schema),
            parameter_schema: schema_of(result.parameter_schema),
        })
    }

    /// Binds `parameters`; the handle to use from now on.
    pub(crate) async fn bind(&mut self, prepared: &mut Prepared, parameters: &RecordBatch) -> Result<(), Status> {
        let command = CommandPreparedStatementQuery {
            prepared_statement_handle: prepared.handle.clone(),
        };
        let results = self.put(command, encode(parameters).await).await?;
        if let Some(result) = results.first()
            && let Some(handle) = DoPutPreparedStatementResult::decode(result.clone())
                .unwrap()
                .prepared_statement_handle
        {
            prepared.handle = handle;
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, prepared: &Prepared) -> Result<Answer, Status> {
        self.command(CommandPreparedStatementQuery {
            prepared_statement_handle: prepared.handle.clone(),
        })
        .await
    }

    /// Executes as an update, once for every row of `parameters`; the total of rows changed.
    pub(crate) async fn execute_update(
        &mut self,
        prepared: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<i64, Status> {
        let data = match parameters {
            Some(batch) => encode(batch).await,
            None => Vec::new(),
        };
        let command = CommandPreparedStatementUpdate {
            prepared_statement_handle: prepared.handle.clone(),
        };
        self.put_update(command, data).await
    }

    pub(crate) async fn close(&mut self, prepared: &Prepared) -> Result<(), Status> {
        let request = ActionClosePreparedStatementRequest {
            prepared_statement_handle: prepared.handle.clone(),
        };
        self.action("ClosePreparedStatement", request.as_any().encode_to_vec())
            .await?;
        Ok(())
    }

    /// The one number that `sql` selects.
    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let answer = self.query(sql).await.unwrap();
        let batch = answer.batches.iter().find(|batch| batch.num_rows() > 0).expect("a row");
        let column = arrow::compute::cast(batch.column(0), &DataType::Int64).unwrap();
        column.as_any().downcast_ref::<Int64Array>().unwrap().value(0)
    }
}

impl Answer {
    /// All values as text, row by row; null is `NULL`.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &self.batches {
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect()));
        }
        rows
    }

    /// The FlightInfo's application metadata.
    pub(crate) fn metadata(&self) -> serde_json::Value {
        serde_json::from_slice(&self.info.app_metadata).unwrap_or(serde_json::Value::Null)
    }

    /// Whether the server says that the statement has no rows to show.
    pub(crate) fn is_update(&self) -> bool {
        self.metadata()["update"].as_bool().unwrap_or(false)
    }
}

/// `batch` as the messages of a DoPut.
pub(crate) async fn encode(batch: &RecordBatch) -> Vec<FlightData> {
    let batches = futures::stream::iter([Ok(batch.clone())]);
    FlightDataEncoderBuilder::new()
        .with_schema(batch.schema())
        .build(batches)
        .try_collect()
        .await
        .unwrap()
}

/// A schema in its IPC form; no bytes mean no schema.
pub(crate) fn schema_of(bytes: prost::bytes::Bytes) -> Schema {
    if bytes.is_empty() {
        Schema::empty()
    } else {
        Schema::try_from(IpcMessage(bytes)).unwrap()
    }
}

/// Names, types and nullability are what clients compare; metadata may differ.
pub(crate) fn check_same(promised: &Schema, given: &Schema) {
    let bare = |schema: &Schema| -> Vec<_> {
        schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
            .collect()
    };
    assert_eq!(
        bare(promised),
        bare(given),
        "the stream's schema is not the FlightInfo's"
    );
}

fn check_honest(schema: &Schema, batches: &[RecordBatch]) {
    for (index, field) in schema.fields().iter().enumerate() {
        assert!(
            plain(field.data_type()),
            "{field}: a type that many clients cannot read"
        );
        for batch in batches.iter().filter(|_| !field.is_nullable()) {
            assert_eq!(
                batch.column(index).null_count(),
                0,
                "{field}: null in a column announced without nulls"
            );
        }
    }
}

fn plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) | DataType::RunEndEncoded(..) => false,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            plain(field.data_type())
        }
        DataType::Map(field, _) => plain(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| plain(field.data_type())),
        _ => true,
    }
}

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(other.to_string()),
    }
}
