//! The SQL of secrets: `CREATE SECRET` and `DROP SECRET`, in DuckDB's spelling.
//!
//! ```sql
//! CREATE [OR REPLACE] [PERSISTENT] SECRET [IF NOT EXISTS] name (TYPE s3, KEY_ID '…', SECRET '…', SCOPE 's3://bucket')
//! DROP [PERSISTENT] SECRET [IF EXISTS] name
//! ```
//!
//! Parsed here and not by sqlparser, whose errors quote the text that they don't understand: that may be a key.

use std::time::{SystemTime, UNIX_EPOCH};

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Ident, SecretOption, Statement as SqlStatement};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use trireme_exec::io::SecretDefinition;
use trireme_exec::{ErrorClass, Position, QueryError};

use crate::ddl::Ddl;
use crate::ddl_sql::if_exists;
use crate::dialect::TriremeDialect;
use crate::names::fold;

/// The statement, when it is one about secrets; `None` for every other.
pub(crate) fn parse(sql: &str) -> Option<Result<Statement, QueryError>> {
    let lower = sql.to_ascii_lowercase();
    if !lower.contains("secret") {
        return None;
    }
    // What can't be cut into tokens is an error of whoever parses it next.
    let tokens = Tokenizer::new(&TriremeDialect, sql).tokenize_with_location().ok()?;
    let tokens: Vec<_> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let mut parser = Parser { tokens, at: 0 };
    let parsed = match parser.head()? {
        Head::Create(head) => parser.create(head),
        Head::Drop { temporary } => parser.drop_secret(temporary),
    };
    Some(parsed.map(|statement| Statement::Statement(Box::new(statement))))
}

/// The change that the statement asks for.
///
/// # Errors
/// What is wrong with the secret, without its values.
pub(crate) fn ddl(statement: &SqlStatement) -> Result<Option<Ddl>, QueryError> {
    match statement {
        SqlStatement::CreateSecret {
            or_replace,
            temporary,
            if_not_exists,
            name,
            storage_specifier,
            secret_type,
            options,
        } => {
            if *temporary == Some(true) || storage_specifier.is_some() {
                return Err(
                    unsupported("temporary secrets, and secrets in other storages, are not supported")
                        .with_hint("CREATE SECRET keeps it with the catalog; DROP SECRET removes it"),
                );
            }
            let Some(name) = name else {
                return Err(QueryError::invalid("a secret needs a name")
                    .with_hint("write CREATE SECRET name (…): OPTIONS (secret 'name') and DROP SECRET use it"));
            };
            let given: Vec<_> = options
                .iter()
                .map(|option| (option.key.value.clone(), option.value.value.clone()))
                .collect();
            let definition = SecretDefinition::new(&fold(name), &secret_type.value, &given, now_ms())?;
            Ok(Some(Ddl::CreateSecret {
                definition: Box::new(definition),
                if_exists: if_exists(*or_replace, *if_not_exists)?,
            }))
        }
        SqlStatement::DropSecret { if_exists, name, .. } => Ok(Some(Ddl::DropSecret {
            name: fold(name),
            missing_ok: *if_exists,
        })),
        _ => Ok(None),
    }
}

fn unsupported(message: &str) -> QueryError {
    QueryError::new(ErrorClass::Unsupported, message)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How the statement begins.
enum Head {
    Create(CreateHead),
    Drop { temporary: bool },
}

struct CreateHead {
    or_replace: bool,
    temporary: bool,
}

struct Parser {
    tokens: Vec<TokenWithSpan>,
    at: usize,
}

impl Parser {
    fn token(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::EOF, |token| &token.token)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.token(), Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &Token) -> bool {
        let found = self.token() == symbol;
        self.at += usize::from(found);
        found
    }

    /// The words up to `SECRET`; `None` for another statement.
    fn head(&mut self) -> Option<Head> {
        let create = self.word("create");
        if !create && !self.word("drop") {
            return None;
        }
        let or_replace = create && self.word("or") && self.word("replace");
        let temporary = self.word("temp") || self.word("temporary");
        let _ = self.word("persistent");
        self.word("secret").then_some(match create {
            true => Head::Create(CreateHead { or_replace, temporary }),
            false => Head::Drop { temporary },
        })
    }

    fn create(&mut self, head: CreateHead) -> Result<SqlStatement, QueryError> {
        let if_not_exists = self.word("if");
        if if_not_exists && !(self.word("not") && self.word("exists")) {
            return Err(self.wrong("IF NOT EXISTS"));
        }
        let name = match self.token() {
            Token::LParen => None,
            Token::Word(word) if word.keyword == Keyword::IN => None,
            _ => Some(self.name()?),
        };
        let storage_specifier = match self.word("in") {
            true => Some(self.name()?),
            false => None,
        };
        self.expect(&Token::LParen, "(")?;
        if !self.word("type") {
            return Err(self.wrong("TYPE first"));
        }
        let _ = self.symbol(&Token::Eq);
        let secret_type = self.value()?;
        let mut options = Vec::new();
        while self.symbol(&Token::Comma) {
            self.option(&mut options)?;
        }
        self.expect(&Token::RParen, ", or )")?;
        self.end()?;
        Ok(SqlStatement::CreateSecret {
            or_replace: head.or_replace,
            temporary: head.temporary.then_some(true),
            if_not_exists,
            name,
            storage_specifier,
            secret_type,
            options,
        })
    }

    fn drop_secret(&mut self, temporary: bool) -> Result<SqlStatement, QueryError> {
        let if_exists = self.word("if");
        if if_exists && !self.word("exists") {
            return Err(self.wrong("IF EXISTS"));
        }
        let name = self.name()?;
        self.end()?;
        Ok(SqlStatement::DropSecret {
            if_exists,
            temporary: temporary.then_some(true),
            name,
            storage_specifier: None,
        })
    }

    /// `KEY value`, `KEY = value`, or `KEY (value, …)`.
    fn option(&mut self, options: &mut Vec<SecretOption>) -> Result<(), QueryError> {
        let Token::Word(word) = self.token() else {
            return Err(self.wrong("the name of an option"));
        };
        let key = Ident::new(word.value.clone());
        self.at += 1;
        let _ = self.symbol(&Token::Eq);
        let close = match self.token() {
            Token::LParen => Token::RParen,
            Token::LBracket => Token::RBracket,
            _ => {
                let value = self.value()?;
                options.push(SecretOption { key, value });
                return Ok(());
            }
        };
        self.at += 1;
        loop {
            let value = self.value()?;
            options.push(SecretOption {
                key: key.clone(),
                value,
            });
            if !self.symbol(&Token::Comma) {
                return self.expect(&close, "the end of the list");
            }
        }
    }

    fn name(&mut self) -> Result<Ident, QueryError> {
        let Token::Word(word) = self.token() else {
            return Err(self.wrong("the secret's name"));
        };
        let name = Ident {
            value: word.value.clone(),
            quote_style: word.quote_style,
            span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
        };
        self.at += 1;
        Ok(name)
    }

    fn value(&mut self) -> Result<Ident, QueryError> {
        let text = match self.token() {
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            Token::Word(word) => word.value.clone(),
            Token::Number(text, _) => text.clone(),
            Token::Placeholder(_) => {
                return Err(self.wrong("a value in quotes (a secret takes no parameters)"));
            }
            _ => return Err(self.wrong("a value in quotes")),
        };
        self.at += 1;
        Ok(Ident::with_quote('\'', text))
    }

    fn expect(&mut self, symbol: &Token, shown: &str) -> Result<(), QueryError> {
        if self.symbol(symbol) {
            return Ok(());
        }
        Err(self.wrong(shown))
    }

    fn end(&mut self) -> Result<(), QueryError> {
        while self.symbol(&Token::SemiColon) {}
        match self.token() {
            Token::EOF => Ok(()),
            _ => Err(self.wrong("the end of the statement")),
        }
    }

    /// Says what should stand at this place, and not what stands there.
    fn wrong(&self, expected: &str) -> QueryError {
        let place = self.tokens.get(self.at).or(self.tokens.last());
        let position = place
            .map(|token| token.span.start)
            .map(|Location { line, column }| Position { line, column });
        QueryError::invalid(format!("syntax error: expected {expected}"))
            .with_hint("write CREATE SECRET name (TYPE s3, KEY_ID '…', SECRET '…', SCOPE 's3://bucket/folder')")
            .at(position)
    }
}

/// The name that a statement about secrets is counted and shown by.
pub(crate) fn command(statement: &SqlStatement) -> Option<&'static str> {
    match statement {
        SqlStatement::CreateSecret { .. } => Some("CREATE SECRET"),
        SqlStatement::DropSecret { .. } => Some("DROP SECRET"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(sql: &str) -> Result<Option<Ddl>, QueryError> {
        match crate::parse::parse(sql)? {
            Statement::Statement(statement) => ddl(&statement),
            _ => Ok(None),
        }
    }

    #[test]
    fn statements_and_their_parts() {
        for sql in [
            "CREATE SECRET Lake (TYPE s3, KEY_ID 'a', SECRET 'hunter2', SCOPE 's3://b')",
            "create or replace persistent secret lake (type S3, provider config, key_id = 'a', secret $$hunter2$$);",
            "CREATE SECRET IF NOT EXISTS \"lake\" (TYPE 's3', KEY_ID 'a', SECRET 'hunter2', SCOPE ['s3://b', 's3://c'])",
            "CREATE SECRET lake (TYPE s3, KEY_ID 'a', SECRET 'hunter2', USE_SSL false, SCOPE ('s3://b'))",
        ] {
            let Some(Ddl::CreateSecret { definition, .. }) = made(sql).unwrap() else {
                panic!("{sql}");
            };
            assert_eq!(definition.name(), "lake");
            assert!(!format!("{definition:?}").contains("hunter2"));
        }
        let dropped = made("DROP SECRET IF EXISTS lake").unwrap();
        assert!(matches!(dropped, Some(Ddl::DropSecret { name, missing_ok: true }) if name == "lake"));
    }

    #[test]
    fn errors_say_where_and_not_what() {
        for sql in [
            "CREATE SECRET x (TYPE s3, KEY_ID 'hunter2' SECRET hunter2)",
            "CREATE SECRET x (TYPE s3, SECRET hunter2/hunter2)",
            "CREATE SECRET x (TYPE s3, 'hunter2' 'hunter2')",
            "CREATE SECRET x (TYPE s3, SECRET 'hunter2)",
            "CREATE SECRET x (TYPE s3, SECRET ?, KEY_ID 'hunter2')",
            "CREATE SECRET x hunter2",
            "CREATE SECRET (TYPE s3, SECRET 'hunter2')",
            "CREATE TEMPORARY SECRET x (TYPE s3, SECRET 'hunter2')",
            "CREATE SECRET x (TYPE s3, SECRET 'hunter2') hunter2",
            "EXPLAIN CREATE SECRET x (TYPE hunter2 hunter2)",
            "CREATE OR ALTER SECRET x (TYPE s3, SECRET 'hunter2', hunter2)",
            "SELECT 1; CREATE SECRET x (TYPE s3, SECRET 'hunter2', hunter2)",
        ] {
            let error = made(sql).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{sql}: {error}");
        }
    }
}
