//! DoAction: prepared statements, cancelling, session options.

use std::collections::HashMap;

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use bytes::Bytes;
use prost::Message;
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::SessionChange;

use super::prepared;
use crate::flight::front::Front;
use crate::flight::identity::Caller;
use crate::flight::messages::{
    CloseSessionResult, CloseStatus, GetSessionOptionsResult, OptionValue, SessionOptionValue, SetError, SetErrorValue,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use crate::flight::ticket::{Redeem, redeem};
use crate::session::Session;

/// The actions this server knows, with what they do.
pub const ACTIONS: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "prepares a statement"),
    ("ClosePreparedStatement", "closes a prepared statement"),
    ("CancelFlightInfo", "cancels the query of a FlightInfo"),
    ("CancelQuery", "cancels the query of a FlightInfo (deprecated form)"),
    (
        "SetSessionOptions",
        "sets options of the session: catalog, schema, and any setting that SQL can SET",
    ),
    ("GetSessionOptions", "gives the options of the session"),
    ("CloseSession", "ends the session"),
];

/// Their list, for ListActions.
pub fn list() -> Vec<ActionType> {
    ACTIONS
        .iter()
        .map(|(name, description)| ActionType {
            r#type: (*name).into(),
            description: (*description).into(),
        })
        .collect()
}

/// Runs an action; gives the body of its one result, if it has one.
///
/// # Errors
/// Unknown actions, malformed bodies, and whatever the action fails with.
pub async fn run(front: &Front, caller: &Caller, action: Action) -> Result<Option<Bytes>, QueryError> {
    match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            if request.transaction_id.is_some_and(|id| !id.is_empty()) {
                return Err(QueryError::new(
                    ErrorClass::Unsupported,
                    "transactions are not supported",
                ));
            }
            let session = caller.session(&front.sessions)?;
            let result = prepared::create(front, &session, request.query).await?;
            Ok(Some(result.as_any().encode_to_vec().into()))
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            if let Some(session) = caller.existing(&front.sessions)
                && session.close_prepared(&request.prepared_statement_handle)
            {
                front.metrics.prepared_statements.dec();
            }
            Ok(None)
        }
        "CancelFlightInfo" => {
            let request = CancelFlightInfoRequest::decode(action.body.as_ref()).map_err(malformed)?;
            let status = cancel(front, caller, request.info.unwrap_or_default());
            let status = if status {
                CancelStatus::Cancelled
            } else {
                CancelStatus::NotCancellable
            };
            Ok(Some(
                CancelFlightInfoResult { status: status as i32 }.encode_to_vec().into(),
            ))
        }
        "CancelQuery" => {
            let request: ActionCancelQueryRequest = unpack(&action.body)?;
            let info = FlightInfo::decode(request.info.as_ref()).map_err(malformed)?;
            // CANCELLED = 1, NOT_CANCELLABLE = 3 (FlightSql.proto, ActionCancelQueryResult).
            let result = if cancel(front, caller, info) { 1 } else { 3 };
            Ok(Some(ActionCancelQueryResult { result }.as_any().encode_to_vec().into()))
        }
        "SetSessionOptions" => set_options(front, caller, &action.body).await.map(Some),
        "GetSessionOptions" => Ok(Some(options(front, caller).encode_to_vec().into())),
        "CloseSession" => Ok(Some(close_session(front, caller).encode_to_vec().into())),
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => Err(QueryError::new(
            ErrorClass::Unsupported,
            "transactions over several statements are not supported",
        )
        .with_hint("every statement commits by itself; use autocommit")),
        other => {
            let known = ACTIONS.map(|(name, _)| name);
            let error = QueryError::new(ErrorClass::Unsupported, format!("the action {other} is not supported"));
            Err(match trireme_planner::names::nearest(other, known) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint(format!("actions: {}", known.join(", "))),
            })
        }
    }
}

fn unpack<M: ProstMessageExt>(body: &[u8]) -> Result<M, QueryError> {
    let any = Any::decode(body).map_err(malformed)?;
    match any.unpack::<M>() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(QueryError::invalid("the action's body is of another kind").with_detail(any.type_url)),
        Err(error) => Err(QueryError::invalid("the action's body can't be read").with_detail(error.to_string())),
    }
}

fn malformed(error: prost::DecodeError) -> QueryError {
    QueryError::invalid("the action's body can't be read").with_detail(error.to_string())
}

/// Cancels the query a FlightInfo describes, if it is the caller's.
fn cancel(front: &Front, caller: &Caller, info: FlightInfo) -> bool {
    let tickets = info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket);
    let mut cancelled = false;
    for ticket in tickets {
        let Ok(Redeem::Query(query_id)) = redeem(&ticket) else {
            continue;
        };
        let own = front
            .queries
            .get(&query_id)
            .is_some_and(|query| query.user() == caller.user);
        cancelled |= own && front.cancel(&query_id);
    }
    cancelled
}

async fn set_options(front: &Front, caller: &Caller, body: &[u8]) -> Result<Bytes, QueryError> {
    let request = SetSessionOptionsRequest::decode(body).map_err(malformed)?;
    let session = caller.session(&front.sessions)?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(reason) = set_option(front, &session, &name, value).await {
            errors.insert(name, SetError { value: reason as i32 });
        }
    }
    Ok(SetSessionOptionsResult { errors }.encode_to_vec().into())
}

async fn set_option(
    front: &Front,
    session: &Session,
    name: &str,
    value: SessionOptionValue,
) -> Result<(), SetErrorValue> {
    let text = match value.option_value {
        None => None,
        Some(OptionValue::String(text)) => Some(text),
        Some(OptionValue::Bool(flag)) => Some(flag.to_string()),
        Some(OptionValue::Int64(number)) => Some(number.to_string()),
        Some(OptionValue::Double(number)) => Some(number.to_string()),
        Some(OptionValue::StringList(_)) => return Err(SetErrorValue::InvalidValue),
    };
    let change = match (name, text) {
        ("catalog", Some(catalog)) if catalog == trireme_planner::names::CATALOG => return Ok(()),
        ("catalog", None) => return Ok(()),
        ("catalog", Some(_)) => return Err(SetErrorValue::InvalidValue),
        ("schema", Some(schema)) => {
            let known = front.engine.schemas().await.map_err(|_| SetErrorValue::Error)?;
            if !known.contains(&schema) {
                return Err(SetErrorValue::InvalidValue);
            }
            SessionChange::UseSchema { schema }
        }
        ("schema", None) => SessionChange::UseSchema {
            schema: trireme_planner::names::DEFAULT_SCHEMA.to_owned(),
        },
        (name, Some(value)) => SessionChange::Set {
            name: name.to_owned(),
            value,
        },
        (name, None) => SessionChange::Reset {
            name: Some(name.to_owned()),
        },
    };
    let known = match &change {
        SessionChange::Set { name, .. } | SessionChange::Reset { name: Some(name) } => {
            trireme_config::SessionSettings::canonical_name(name).is_ok()
        }
        _ => true,
    };
    if !known {
        return Err(SetErrorValue::InvalidName);
    }
    session
        .change(&change, &front.sessions)
        .map_err(|_| SetErrorValue::InvalidValue)
}

/// Options of the session; asking makes none, since pools ask to see whether we live.
fn options(front: &Front, caller: &Caller) -> GetSessionOptionsResult {
    let Some(session) = caller.existing(&front.sessions) else {
        return GetSessionOptionsResult::default();
    };
    let text = |value: String| SessionOptionValue {
        option_value: Some(OptionValue::String(value)),
    };
    let mut session_options = HashMap::new();
    session_options.insert("catalog".to_owned(), text(trireme_planner::names::CATALOG.to_owned()));
    session_options.insert("schema".to_owned(), text(session.schema()));
    GetSessionOptionsResult { session_options }
}

fn close_session(front: &Front, caller: &Caller) -> CloseSessionResult {
    let closed = caller
        .keys
        .iter()
        .find_map(|key| front.sessions.close(key, &caller.user));
    if let Some(session_id) = &closed {
        front.cancel_session(session_id);
    }
    let status = if closed.is_some() {
        CloseStatus::Closed
    } else {
        CloseStatus::NotCloseable
    };
    CloseSessionResult { status: status as i32 }
}
