//! Tickets: a statement's names its query by an unguessable id; a metadata command's is the command itself.

use arrow_flight::Ticket;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use prost::Message;
use trireme_exec::QueryError;

use super::command::{Command, Metadata, decode};

/// What a ticket stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Redeem {
    /// The result of a statement.
    Query(String),
    /// The answer to a metadata command.
    Metadata(Metadata),
}

/// The ticket of a planned statement.
pub fn for_query(query_id: &str) -> Ticket {
    let ticket = TicketStatementQuery {
        statement_handle: query_id.to_owned().into(),
    };
    Ticket {
        ticket: ticket.as_any().encode_to_vec().into(),
    }
}

/// The ticket of a metadata command.
pub fn for_metadata(command: &Metadata) -> Ticket {
    Ticket {
        ticket: command.to_any().encode_to_vec().into(),
    }
}

/// Reads a ticket.
///
/// # Errors
/// When it is none of ours.
pub fn redeem(ticket: &Ticket) -> Result<Redeem, QueryError> {
    match decode(&ticket.ticket) {
        Ok(Command::StatementTicket { query_id }) => Ok(Redeem::Query(query_id)),
        Ok(Command::Metadata(metadata)) => Ok(Redeem::Metadata(metadata)),
        Ok(_) => {
            Err(QueryError::invalid("the ticket holds a command")
                .with_hint("call GetFlightInfo first and send its ticket"))
        }
        Err(error) => Err(QueryError::invalid("the ticket is not one of this server")
            .with_detail(error.detail.unwrap_or(error.message))
            .with_hint("send the ticket of an endpoint as GetFlightInfo returned it")),
    }
}
