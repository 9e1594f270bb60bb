//! What a client asks for, typed: decoded from the protobuf `Any` in descriptors, tickets and DoPut streams.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Any, Command as SqlCommand, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTables, CommandGetXdbcTypeInfo,
    ProstMessageExt,
};
use bytes::Bytes;
use prost::Message;
use trireme_exec::{ErrorClass, QueryError};

/// A command of Flight SQL that this server knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Run SQL that returns rows (or an update sent as a query).
    StatementQuery { sql: String },
    /// Run an update.
    StatementUpdate { sql: String },
    /// Run, or bind, a prepared statement.
    PreparedQuery { handle: Bytes },
    /// Run a prepared update.
    PreparedUpdate { handle: Bytes },
    /// The rows of a statement that was planned.
    StatementTicket { query_id: String },
    /// Ask for metadata.
    Metadata(Metadata),
}

/// The metadata commands.
#[derive(Debug, Clone, PartialEq)]
pub enum Metadata {
    /// Catalogs.
    Catalogs,
    /// Schemas.
    DbSchemas(CommandGetDbSchemas),
    /// Tables.
    Tables(CommandGetTables),
    /// Table types.
    TableTypes,
    /// Primary keys of a table.
    PrimaryKeys(CommandGetPrimaryKeys),
    /// Foreign keys that refer to a table.
    ExportedKeys(CommandGetExportedKeys),
    /// Foreign keys of a table.
    ImportedKeys(CommandGetImportedKeys),
    /// Foreign keys between two tables.
    CrossReference(CommandGetCrossReference),
    /// Types.
    XdbcTypeInfo(CommandGetXdbcTypeInfo),
    /// What the server can do.
    SqlInfo(CommandGetSqlInfo),
}

impl Metadata {
    /// The command packed again, which is its ticket.
    pub fn to_any(&self) -> Any {
        match self {
            Metadata::Catalogs => arrow_flight::sql::CommandGetCatalogs {}.as_any(),
            Metadata::DbSchemas(command) => command.as_any(),
            Metadata::Tables(command) => command.as_any(),
            Metadata::TableTypes => arrow_flight::sql::CommandGetTableTypes {}.as_any(),
            Metadata::PrimaryKeys(command) => command.as_any(),
            Metadata::ExportedKeys(command) => command.as_any(),
            Metadata::ImportedKeys(command) => command.as_any(),
            Metadata::CrossReference(command) => command.as_any(),
            Metadata::XdbcTypeInfo(command) => command.as_any(),
            Metadata::SqlInfo(command) => command.as_any(),
        }
    }
}

/// Decodes the command of a descriptor.
///
/// # Errors
/// For paths, malformed messages and commands of a kind we don't know.
pub fn from_descriptor(descriptor: &FlightDescriptor) -> Result<Command, QueryError> {
    if descriptor.r#type != DescriptorType::Cmd as i32 {
        return Err(
            QueryError::invalid("the descriptor is no Flight SQL command").with_hint("send a descriptor of type CMD")
        );
    }
    decode(&descriptor.cmd)
}

/// Decodes a packed command.
///
/// # Errors
/// As [`from_descriptor`].
pub fn decode(bytes: &[u8]) -> Result<Command, QueryError> {
    let any = Any::decode(bytes).map_err(|error| {
        QueryError::invalid("the command can't be read").with_detail(format!("it is no protobuf Any: {error}"))
    })?;
    let type_url = any.type_url.clone();
    let command = SqlCommand::try_from(any).map_err(|error| {
        QueryError::invalid("the command can't be read").with_detail(format!("{type_url}: {error}"))
    })?;
    typed(command, &type_url)
}

fn typed(command: SqlCommand, type_url: &str) -> Result<Command, QueryError> {
    let metadata = match command {
        SqlCommand::CommandStatementQuery(query) => {
            refuse_transaction(query.transaction_id.as_ref())?;
            return Ok(Command::StatementQuery { sql: query.query });
        }
        SqlCommand::CommandStatementUpdate(update) => {
            refuse_transaction(update.transaction_id.as_ref())?;
            return Ok(Command::StatementUpdate { sql: update.query });
        }
        SqlCommand::CommandPreparedStatementQuery(query) => {
            return Ok(Command::PreparedQuery {
                handle: query.prepared_statement_handle,
            });
        }
        SqlCommand::CommandPreparedStatementUpdate(update) => {
            return Ok(Command::PreparedUpdate {
                handle: update.prepared_statement_handle,
            });
        }
        SqlCommand::TicketStatementQuery(ticket) => return statement_ticket(&ticket.statement_handle),
        SqlCommand::CommandGetCatalogs(_) => Metadata::Catalogs,
        SqlCommand::CommandGetDbSchemas(command) => Metadata::DbSchemas(command),
        SqlCommand::CommandGetTables(command) => Metadata::Tables(command),
        SqlCommand::CommandGetTableTypes(_) => Metadata::TableTypes,
        SqlCommand::CommandGetPrimaryKeys(command) => Metadata::PrimaryKeys(command),
        SqlCommand::CommandGetExportedKeys(command) => Metadata::ExportedKeys(command),
        SqlCommand::CommandGetImportedKeys(command) => Metadata::ImportedKeys(command),
        SqlCommand::CommandGetCrossReference(command) => Metadata::CrossReference(command),
        SqlCommand::CommandGetXdbcTypeInfo(command) => Metadata::XdbcTypeInfo(command),
        SqlCommand::CommandGetSqlInfo(command) => Metadata::SqlInfo(command),
        SqlCommand::CommandStatementIngest(_) => {
            return Err(unsupported("bulk ingestion", "use INSERT or CREATE TABLE … AS"));
        }
        SqlCommand::CommandStatementSubstraitPlan(_) => return Err(unsupported("Substrait", "send SQL")),
        _ => {
            return Err(
                QueryError::invalid(format!("{type_url} is not a command of this server"))
                    .with_hint("it speaks Arrow Flight SQL: statements, prepared statements and metadata commands"),
            );
        }
    };
    Ok(Command::Metadata(metadata))
}

fn statement_ticket(handle: &Bytes) -> Result<Command, QueryError> {
    let query_id =
        std::str::from_utf8(handle).map_err(|_| QueryError::invalid("the ticket is not one of this server"))?;
    Ok(Command::StatementTicket {
        query_id: query_id.to_owned(),
    })
}

fn unsupported(what: &str, hint: &str) -> QueryError {
    QueryError::new(ErrorClass::Unsupported, format!("{what} is not supported")).with_hint(hint)
}

fn refuse_transaction(id: Option<&Bytes>) -> Result<(), QueryError> {
    match id {
        Some(id) if !id.is_empty() => Err(unsupported(
            "a transaction over several statements",
            "every statement commits by itself",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::CommandStatementQuery;

    use super::*;

    #[test]
    fn garbage_is_invalid() {
        for bytes in [&b"\xff\xff\xff"[..], b"", b"\x0a\x03abc"] {
            assert_eq!(decode(bytes).unwrap_err().class, ErrorClass::Invalid, "{bytes:?}");
        }
    }

    #[test]
    fn a_query_decodes() {
        let any = CommandStatementQuery {
            query: "SELECT 1".into(),
            transaction_id: None,
        }
        .as_any();
        assert_eq!(
            decode(&any.encode_to_vec()).unwrap(),
            Command::StatementQuery { sql: "SELECT 1".into() }
        );
    }
}
