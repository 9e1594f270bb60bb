//! Backslash commands: their names, their arguments, and the text of `\?`. What they do is elsewhere.
//!
//! [`COMMANDS`] is the one table: parsing, completion and help read it.

use crate::error::Failure;
use crate::pattern::Pattern;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meta {
    /// A name alone lists; with a pattern that names one table it describes.
    Describe(Option<Pattern>),
    List {
        what: Relation,
        pattern: Option<Pattern>,
        with_system: bool,
    },
    Schemas(Option<Pattern>),
    Catalogs,
    ConnInfo,
    Timing(Option<bool>),
    Expanded(Option<bool>),
    TuplesOnly(Option<bool>),
    Format(Option<String>),
    Pset(Option<(String, Option<String>)>),
    Include(String),
    Output(Option<String>),
    Echo {
        text: String,
        line_end: bool,
    },
    /// Send the last statement again.
    Go {
        file: Option<String>,
        expanded: bool,
    },
    Watch {
        seconds: f64,
    },
    Edit(Option<String>),
    Reset,
    Help,
    SqlHelp(String),
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Table,
    View,
}

pub(crate) struct CommandHelp {
    /// All spellings, the shown one first.
    pub(crate) names: &'static [&'static str],
    pub(crate) arguments: &'static str,
    pub(crate) help: &'static str,
}

const fn command(names: &'static [&'static str], arguments: &'static str, help: &'static str) -> CommandHelp {
    CommandHelp { names, arguments, help }
}

pub(crate) const COMMANDS: &[CommandHelp] = &[
    command(&["d"], "[NAME]", "describe a table or view; without a name, list them"),
    command(
        &["dt", "dt+", "dtS"],
        "[PATTERN]",
        "list tables; S: those of the system too",
    ),
    command(&["dv", "dv+", "dvS"], "[PATTERN]", "list views"),
    command(&["dn", "dn+", "dnS"], "[PATTERN]", "list schemas"),
    command(&["l", "list"], "", "list catalogs"),
    command(&["conninfo"], "", "say where this session is connected"),
    command(
        &["g"],
        "[FILE]",
        "send the statement (or the last one again), to a file if named",
    ),
    command(&["gx"], "[FILE]", "as \\g, in the vertical form"),
    command(
        &["watch"],
        "[SECONDS]",
        "send the statement every 2 or so many seconds, until Ctrl-C",
    ),
    command(&["i", "include"], "FILE", "run a script"),
    command(
        &["o", "out"],
        "[FILE]",
        "write results to a file; without a name, to the screen again",
    ),
    command(
        &["e", "edit"],
        "[FILE]",
        "edit the last statement (or a file) with $EDITOR and run it",
    ),
    command(&["r", "reset"], "", "forget the statement that is being typed"),
    command(&["timing"], "[on|off]", "print how long each statement took"),
    command(&["x"], "[on|off]", "vertical form for tables"),
    command(&["t"], "[on|off]", "rows only"),
    command(
        &["format"],
        "[NAME]",
        "table, csv, tsv, json, jsonl, markdown or vertical",
    ),
    command(
        &["pset"],
        "[NAME [VALUE]]",
        "set null, format, expanded, tuples_only, timing or pager",
    ),
    command(&["echo"], "[-n] TEXT", "print a text"),
    command(&["h", "help"], "[STATEMENT]", "a reminder of SQL"),
    command(&["?"], "", "this help"),
    command(&["q", "quit"], "", "quit (also Ctrl-D)"),
];

/// Reads a command without its backslash.
pub(crate) fn parse(text: &str) -> Result<Meta, Failure> {
    let end = text.find(|c: char| c.is_whitespace()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    // psql users write `\d;` out of habit.
    let name = name.trim_end_matches(';');
    let rest = rest.trim();
    let words = words(rest)?;
    let first = || words.first().cloned();
    let meta = match name {
        "d" | "d+" => Meta::Describe(pattern(rest)?),
        "dt" | "dt+" | "dtS" | "dtS+" | "dv" | "dv+" | "dvS" | "dvS+" => Meta::List {
            what: if name.starts_with("dt") {
                Relation::Table
            } else {
                Relation::View
            },
            pattern: pattern(rest)?,
            with_system: name.contains('S'),
        },
        "dn" | "dn+" | "dnS" | "dnS+" => Meta::Schemas(pattern(rest)?),
        "l" | "l+" | "list" => Meta::Catalogs,
        "conninfo" => Meta::ConnInfo,
        "timing" => Meta::Timing(switch(name, first())?),
        "x" => Meta::Expanded(switch(name, first())?),
        "t" => Meta::TuplesOnly(switch(name, first())?),
        "format" => Meta::Format(first()),
        "pset" => Meta::Pset(first().map(|option| (option, words.get(1).cloned()))),
        "i" | "include" | "ir" => Meta::Include(required(name, first())?),
        "o" | "out" => Meta::Output(file_name(name, first())?),
        "echo" | "qecho" => echo(&words),
        "g" | "gx" => Meta::Go {
            file: file_name(name, first())?,
            expanded: name == "gx",
        },
        "watch" => Meta::Watch {
            seconds: seconds(first())?,
        },
        "e" | "edit" => Meta::Edit(first()),
        "r" | "reset" => Meta::Reset,
        "?" => Meta::Help,
        "h" | "help" => Meta::SqlHelp(words.join(" ")),
        "q" | "quit" => Meta::Quit,
        _ => return Err(unknown(name)),
    };
    Ok(meta)
}

/// The text of `\?`.
pub(crate) fn help() -> String {
    let mut text = String::new();
    for command in COMMANDS {
        let usage = format!("\\{} {}", command.names.first().unwrap_or(&""), command.arguments);
        text.push_str(&format!("  {usage:<24}{}\n", command.help));
    }
    text.push_str(
        "\nA statement ends with ; and may span lines.\nTab completes, Alt-Enter adds a line, Ctrl-C cancels.\n",
    );
    text
}

/// Statements that `\h` reminds of.
const STATEMENTS: &[(&str, &str)] = &[
    ("ANALYZE", "ANALYZE table"),
    (
        "COPY",
        "COPY { table | (query) } TO 'location' [STORED AS format] [OPTIONS (...)]",
    ),
    (
        "CREATE EXTERNAL TABLE",
        "CREATE EXTERNAL TABLE name [(columns)] STORED AS format [PARTITIONED BY (...)] LOCATION 'location'",
    ),
    (
        "CREATE FUNCTION",
        "CREATE [OR REPLACE] FUNCTION name(argument type, ...) RETURNS type [STRICT] RETURN expression",
    ),
    ("CREATE SCHEMA", "CREATE SCHEMA [IF NOT EXISTS] name"),
    (
        "CREATE TABLE",
        "CREATE TABLE [IF NOT EXISTS] name { (columns) | AS query }",
    ),
    ("CREATE VIEW", "CREATE [OR REPLACE] VIEW name AS query"),
    ("DELETE", "DELETE FROM table [WHERE condition]"),
    ("DESCRIBE", "DESCRIBE table"),
    ("DROP", "DROP { TABLE | VIEW | FUNCTION | SCHEMA } [IF EXISTS] name"),
    ("EXPLAIN", "EXPLAIN [ANALYZE] [VERBOSE] query"),
    ("INSERT", "INSERT INTO table [(columns)] { VALUES (...), ... | query }"),
    (
        "SELECT",
        "[WITH name AS (query), ...] SELECT [DISTINCT] expressions FROM tables\n    [WHERE condition] [GROUP BY ...] [HAVING ...] [QUALIFY ...]\n    [UNION ...] [ORDER BY ...] [LIMIT n] [OFFSET n]",
    ),
    ("SET", "SET name = value"),
    ("SHOW", "SHOW { TABLES | COLUMNS FROM table | FUNCTIONS | ALL | name }"),
    ("UPDATE", "UPDATE table SET column = value, ... [WHERE condition]"),
    ("VALUES", "VALUES (...), ..."),
];

/// The text of `\h`, for all statements or for those that begin like `topic`.
pub(crate) fn sql_help(topic: &str) -> Result<String, Failure> {
    let topic = topic.trim_end_matches(';').to_uppercase();
    if topic.is_empty() {
        let names: Vec<&str> = STATEMENTS.iter().map(|(name, _)| *name).collect();
        return Ok(format!("Help on a statement: \\h NAME. Names: {}\n", names.join(", ")));
    }
    let text: String = STATEMENTS
        .iter()
        .filter(|(name, _)| name.starts_with(&topic) || topic.starts_with(name))
        .map(|(name, syntax)| format!("{name}\n    {syntax}\n"))
        .collect();
    if text.is_empty() {
        return Err(Failure::new(format!("no help for \"{topic}\"")).with_hint("\\h lists the statements"));
    }
    Ok(text)
}

pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn unknown(name: &str) -> Failure {
    if name.starts_with('!') {
        return Failure::new("\\! is not supported: this client does not run shell commands");
    }
    let nearest = COMMANDS
        .iter()
        .flat_map(|command| command.names)
        .filter(|known| known.len() > 1 && strsim::levenshtein(known, name) <= 2)
        .min_by_key(|known| strsim::levenshtein(known, name));
    let hint = match nearest {
        Some(nearest) => format!("did you mean \\{nearest}? \\? lists all commands"),
        None => "\\? lists all commands".to_owned(),
    };
    Failure::new(format!("unknown command \\{name}")).with_hint(hint)
}

fn switch(name: &str, word: Option<String>) -> Result<Option<bool>, Failure> {
    word.map(|word| {
        parse_switch(&word).ok_or_else(|| Failure::new(format!("\\{name} takes on or off, not \"{word}\"")))
    })
    .transpose()
}

fn required(name: &str, word: Option<String>) -> Result<String, Failure> {
    word.ok_or_else(|| Failure::new(format!("\\{name} needs a file name")))
}

fn file_name(name: &str, word: Option<String>) -> Result<Option<String>, Failure> {
    match word {
        Some(word) if word.starts_with('|') => Err(Failure::new(format!(
            "\\{name} cannot write to a command: this client does not run shell commands"
        ))),
        word => Ok(word),
    }
}

fn pattern(text: &str) -> Result<Option<Pattern>, Failure> {
    let text = text.trim_end_matches(';').trim();
    if text.is_empty() {
        return Ok(None);
    }
    Pattern::parse(text).map(Some)
}

fn seconds(word: Option<String>) -> Result<f64, Failure> {
    let Some(word) = word else { return Ok(2.0) };
    let text = word.strip_prefix("i=").unwrap_or(&word);
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err(Failure::new(format!(
            "\\watch takes seconds from 0.05 to 86400, not \"{word}\""
        ))),
    }
}

fn echo(words: &[String]) -> Meta {
    let (line_end, words) = match words {
        [first, rest @ ..] if first == "-n" => (false, rest),
        all => (true, all),
    };
    Meta::Echo {
        text: words.join(" "),
        line_end,
    }
}

/// Cuts arguments at spaces. A quote 'like this' keeps spaces in; `''` inside is one quote.
fn words(text: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            if c != '\'' {
                word.push(c);
                continue;
            }
            loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => word.push('\''),
                    Some('\'') => break,
                    Some(c) => word.push(c),
                    None => return Err(Failure::new("a quote is not closed")),
                }
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(parse("q").unwrap(), Meta::Quit);
        assert_eq!(parse("d").unwrap(), Meta::Describe(None));
        assert_eq!(parse("d;").unwrap(), Meta::Describe(None));
        assert!(matches!(parse("d public.orders;").unwrap(), Meta::Describe(Some(_))));
        assert!(matches!(
            parse("dtS").unwrap(),
            Meta::List {
                with_system: true,
                what: Relation::Table,
                ..
            }
        ));
        assert_eq!(parse("timing").unwrap(), Meta::Timing(None));
        assert_eq!(parse("timing on").unwrap(), Meta::Timing(Some(true)));
        assert_eq!(parse("x off").unwrap(), Meta::Expanded(Some(false)));
        assert_eq!(
            parse("pset null 'no value'").unwrap(),
            Meta::Pset(Some(("null".into(), Some("no value".into()))))
        );
        assert_eq!(parse("o").unwrap(), Meta::Output(None));
        assert_eq!(parse("i 'my file.sql'").unwrap(), Meta::Include("my file.sql".into()));
        assert_eq!(
            parse("echo -n a  'b  c'").unwrap(),
            Meta::Echo {
                text: "a b  c".into(),
                line_end: false
            }
        );
        assert_eq!(parse("watch 0.5").unwrap(), Meta::Watch { seconds: 0.5 });
        assert_eq!(
            parse("gx").unwrap(),
            Meta::Go {
                file: None,
                expanded: true
            }
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| parse(text).unwrap_err().message;
        assert!(message("! ls").contains("not supported"));
        assert!(message("!ls").contains("not supported"));
        assert!(message("timing maybe").contains("on or off"));
        assert!(message("i").contains("file name"));
        assert!(message("o |less").contains("shell"));
        assert!(message("echo 'open").contains("not closed"));
        assert!(message("watch soon").contains("seconds"));
        let failure = parse("timng").unwrap_err();
        assert_eq!(failure.message, "unknown command \\timng");
        assert!(failure.hint[0].contains("\\timing"));
    }

    #[test]
    fn every_command_of_the_table_is_known() {
        for name in COMMANDS.iter().flat_map(|command| command.names) {
            if let Err(failure) = parse(name) {
                assert!(!failure.message.starts_with("unknown"), "{name}");
            }
        }
        assert!(help().contains("\\conninfo"));
        assert!(sql_help("create").unwrap().contains("CREATE VIEW"));
        assert!(sql_help("frobnicate").is_err());
    }
}
