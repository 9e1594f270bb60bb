//! `CALL calibrate('quick' | 'full')` and `CALL reset_models()`: what administrators ask of the cost model.

use datafusion::sql::parser::Statement;
use trireme_exec::QueryError;

use crate::pins;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Procedure {
    /// Every device is measured anew; with `full` as `trireme calibrate` does it, else within seconds.
    Calibrate {
        /// See above.
        full: bool,
    },
    /// What was learned from runs is forgotten.
    ResetModels,
}

/// The procedure that a statement calls; none when it isn't one of these.
///
/// # Errors
/// When its arguments are others.
pub(crate) fn procedure(statement: &Statement) -> Result<Option<Procedure>, QueryError> {
    let Statement::Statement(statement) = statement else {
        return Ok(None);
    };
    let Some((name, arguments)) = pins::called(statement) else {
        return Ok(None);
    };
    match (name.as_str(), arguments.as_slice()) {
        ("calibrate", [] | ["quick"]) => Ok(Some(Procedure::Calibrate { full: false })),
        ("calibrate", ["full"]) => Ok(Some(Procedure::Calibrate { full: true })),
        ("reset_models", []) => Ok(Some(Procedure::ResetModels)),
        ("calibrate" | "reset_models", _) => Err(QueryError::invalid("the procedure has no such arguments")
            .with_hint("write CALL calibrate(), CALL calibrate('full'), or CALL reset_models()")),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn calls_are_known_or_refused() {
        let of = |sql: &str| procedure(&parse::parse(sql).unwrap());
        assert_eq!(
            of("CALL calibrate()").unwrap(),
            Some(Procedure::Calibrate { full: false })
        );
        assert_eq!(
            of("call Calibrate('full')").unwrap(),
            Some(Procedure::Calibrate { full: true })
        );
        assert_eq!(of("CALL reset_models()").unwrap(), Some(Procedure::ResetModels));
        assert_eq!(of("CALL other()").unwrap(), None);
        assert_eq!(of("SELECT 1").unwrap(), None);
        assert!(of("CALL calibrate('slow')").is_err() && of("CALL reset_models('all')").is_err());
    }
}
