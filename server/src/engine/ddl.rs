//! Changes of the catalog: who may ask for them, and the line in the log about those that others should know of.

use std::sync::Arc;

use datafusion::execution::SessionState;
use trireme_catalog::{Applied, Catalog};
use trireme_config::Config;
use trireme_exec::{ErrorClass, QueryError};
use trireme_planner::ddl::Ddl;

/// Who may create and drop secrets.
#[derive(Debug, Clone)]
pub struct SecretPolicy {
    administrators: Vec<String>,
    /// False where everybody may come in.
    authenticated: bool,
}

impl SecretPolicy {
    /// As the server is set up.
    pub fn new(config: &Config) -> Self {
        Self {
            administrators: config.secrets.administrators.clone(),
            authenticated: config.server.users_file.is_some(),
        }
    }

    /// Whether a user may call what all others feel.
    ///
    /// # Errors
    /// When only administrators may.
    pub(super) fn check_call(&self, user: &str) -> Result<(), QueryError> {
        match self.authenticated && !self.administrators.iter().any(|name| name == user) {
            true => Err(
                QueryError::new(ErrorClass::PermissionDenied, "only administrators call this")
                    .with_hint("administrators stand in the setting secrets.administrators"),
            ),
            false => Ok(()),
        }
    }

    fn check(&self, user: &str, ddl: &Ddl) -> Result<(), QueryError> {
        let (Ddl::CreateSecret { .. } | Ddl::DropSecret { .. }) = ddl else {
            return Ok(());
        };
        let listed = self.administrators.iter().any(|name| name == user);
        let denied = |message: &str| {
            Err(QueryError::new(ErrorClass::PermissionDenied, message)
                .with_hint("administrators of secrets stand in the setting secrets.administrators"))
        };
        if !self.administrators.is_empty() && !listed {
            return denied("only administrators create and drop secrets here");
        }
        // Without users, whoever reaches the server works with its identity anyway.
        if let Ddl::CreateSecret { definition, .. } = ddl
            && let Some(option) = definition.uses_server_identity()
            && self.authenticated
            && !listed
        {
            return denied(&format!(
                "only administrators give a secret {option} over the server's own credentials"
            ));
        }
        Ok(())
    }
}

/// Carries out a change for a user.
///
/// # Errors
/// When the user may not; whatever the catalog says.
pub(super) async fn apply(
    catalog: &Catalog,
    policy: &SecretPolicy,
    state: SessionState,
    user: &str,
    ddl: &Ddl,
) -> Result<Applied, QueryError> {
    policy.check(user, ddl)?;
    // On the heap: it is larger than the rest of a statement's work.
    let applied = Box::pin(catalog.apply(Arc::new(state), ddl.clone())).await?;
    match ddl {
        Ddl::CreateSecret { definition, .. } => {
            tracing::info!(
                secret = definition.name(),
                kind = definition.kind().as_str(),
                user,
                "a secret was created"
            );
        }
        Ddl::DropSecret { name, .. } => tracing::info!(secret = name, user, "a secret was dropped"),
        _ => {}
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_exec::io::SecretDefinition;
    use trireme_planner::ddl::IfExists;

    fn create(given: &[(&str, &str)]) -> Ddl {
        let given: Vec<_> = given
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Ddl::CreateSecret {
            definition: Box::new(SecretDefinition::new("x", "s3", &given, 1).unwrap()),
            if_exists: IfExists::Fail,
        }
    }

    #[test]
    fn who_may() {
        let policy = |administrators: &[&str], authenticated| SecretPolicy {
            administrators: administrators.iter().map(|name| (*name).to_owned()).collect(),
            authenticated,
        };
        let own = create(&[("KEY_ID", "a"), ("SECRET", "b")]);
        let chain = create(&[("PROVIDER", "credential_chain")]);
        let profile = create(&[("PROVIDER", "credential_chain"), ("PROFILE", "work")]);
        let everybody = policy(&[], true);
        assert!(everybody.check("bob", &own).is_ok() && everybody.check("bob", &chain).is_ok());
        assert!(everybody.check("bob", &profile).is_err());
        let ada = policy(&["ada"], true);
        assert!(ada.check("ada", &profile).is_ok() && ada.check("bob", &own).is_err());
        let drop = Ddl::DropSecret {
            name: "x".to_owned(),
            missing_ok: true,
        };
        assert!(ada.check("bob", &drop).is_err() && ada.check("ada", &drop).is_ok());
        assert!(policy(&[], false).check("", &profile).is_ok());
        assert!(policy(&[], false).check_call("").is_ok() && policy(&["ada"], true).check_call("ada").is_ok());
        assert!(policy(&["ada"], true).check_call("bob").is_err() && policy(&[], true).check_call("bob").is_err());
    }
}
