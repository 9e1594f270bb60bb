//! DataFusion's way to object stores: built on first use, one per scheme, host and set of options.
//!
//! ```text
//!  file:///…                 ─▶ guarded local file system
//!  s3://bucket               ─▶ store from the environment's credentials
//!  s3://o1f…@bucket          ─▶ store from a table's own OPTIONS (the user part is a fingerprint, never a secret)
//!  s3://s7@bucket            ─▶ store from a secret; a secret that is replaced or dropped takes its stores along
//! ```
//!
//! Remote stores stand behind the lake's tiers and its parallel, hedged requests; local files don't need them.
//!
//! The allow-list was asked when a statement named its location; it is asked again here, because plans and table formats
//! can carry locations of their own.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use parking_lot::Mutex;
use trireme_lake::{Clients, Lake};
use url::Url;

use super::environment::Environment;
use super::locations::{LocationError, Locations, redacted};
use super::network::StoreLimits;
use super::options::{StoreConfig, StoreOptions};
use super::secrets::{LiveSecret, SecretDefinition, Secrets};
use super::stores::{self, Building};
use crate::error::{ErrorClass, QueryError};

/// Clients that read from one store, in turn: each has connections of its own.
const READERS: usize = 2;

/// See the module.
pub struct StoreRegistry {
    locations: Arc<Locations>,
    lake: Arc<Lake>,
    environment: Environment,
    limits: StoreLimits,
    secrets: Secrets,
    local: Arc<dyn ObjectStore>,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl std::fmt::Debug for StoreRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreRegistry")
            .field("stores", &self.stores.lock().keys().collect::<Vec<_>>())
            .finish()
    }
}

impl StoreRegistry {
    /// A registry behind this allow-list, over this lake, with the environment of the process.
    pub fn new(locations: Arc<Locations>, lake: Arc<Lake>) -> Self {
        Self::with(locations, lake, Environment::of_process(), StoreLimits::default())
    }

    /// A registry with this environment and these limits.
    pub fn with(locations: Arc<Locations>, lake: Arc<Lake>, environment: Environment, limits: StoreLimits) -> Self {
        let local = stores::local::build(&locations);
        Self {
            locations,
            lake,
            environment,
            limits,
            secrets: Secrets::default(),
            local,
            stores: Mutex::new(HashMap::new()),
        }
    }

    /// The allow-list.
    pub fn locations(&self) -> &Arc<Locations> {
        &self.locations
    }

    /// What remote stores are read through; [`Lake::store`] knows them by [`StoreRegistry::key`].
    pub fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// Scheme, options' fingerprint, host and port: one store each.
    pub fn key(url: &Url) -> String {
        key(url)
    }

    /// The store as it is used: behind the lake, which reads through clients of its own.
    fn open(&self, key: &str, building: Building<'_>) -> Result<Arc<dyn ObjectStore>, QueryError> {
        let other = building.build()?;
        if !self.lake.options().enabled {
            return Ok(other);
        }
        let reading = Building {
            reads_only: true,
            ..building
        };
        let readers = (0..READERS).map(|_| reading.build()).collect::<Result<_, _>>()?;
        let url = building.url;
        let name = format!(
            "{}://{}",
            url.scheme(),
            &url[url::Position::BeforeHost..url::Position::AfterPort]
        );
        Ok(self.lake.wrap_clients(key, &name, Clients { readers, other }))
    }

    /// Makes these the secrets that stores are built with. Stores of others are gone; statements that read from one already
    /// go on.
    pub fn set_secrets(&self, definitions: &[SecretDefinition]) {
        let gone: Vec<String> = self.secrets.replace(definitions).into_iter().map(user_part).collect();
        let of_gone = |key: &str| gone.iter().any(|user| key.contains(&format!("://{user}@")));
        self.stores.lock().retain(|key, _| !of_gone(key));
    }

    /// Checks that stores can be built with a secret, without asking any.
    ///
    /// # Errors
    /// Endpoints that aren't allowed; options that are wrong, or say too little.
    pub fn check_secret(&self, definition: &SecretDefinition) -> Result<(), QueryError> {
        let example = definition.example();
        let url = example.ok_or_else(|| QueryError::internal("no location is like the secret's"))?;
        self.building(&url, &definition.config()).build().map(|_| ())
    }

    /// Builds the store that a table's OPTIONS, or a secret for its location, lead to; the URL that comes back leads to it.
    ///
    /// # Errors
    /// A secret that is missing or for other locations; whatever keeps the store from being built.
    pub fn bind(&self, url: &Url, options: &StoreOptions) -> Result<Url, QueryError> {
        if url.scheme() == "file" && options.secret().is_none() {
            return Ok(url.clone());
        }
        let secret = match options.secret() {
            Some(name) => Some(self.secrets.named(name, url)?),
            None if options.is_empty() => self.secrets.best(url)?,
            None => None,
        };
        match secret {
            Some(secret) => self.bind_secret(url, &secret),
            None if options.is_empty() => Ok(url.clone()),
            None => self.bind_as(url, &options.fingerprint(), &options.config()),
        }
    }

    fn bind_secret(&self, url: &Url, secret: &LiveSecret) -> Result<Url, QueryError> {
        self.bind_as(url, &user_part(secret.generation), &secret.definition.config())
    }

    fn bind_as(&self, url: &Url, user: &str, config: &StoreConfig) -> Result<Url, QueryError> {
        let mut bound = url.clone();
        bound
            .set_username(user)
            .map_err(|()| QueryError::invalid(format!("options can't be given for {}", redacted(url.as_str()))))?;
        let key = key(&bound);
        if !self.stores.lock().contains_key(&key) {
            let store = self.open(&key, self.building(url, config))?;
            self.stores.lock().insert(key, store);
        }
        Ok(bound)
    }

    fn building<'a>(&'a self, url: &'a Url, config: &'a StoreConfig) -> Building<'a> {
        Building {
            locations: &self.locations,
            environment: &self.environment,
            limits: self.limits,
            url,
            config,
            reads_only: false,
        }
    }

    fn find_or_build(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, QueryError> {
        if url.scheme() == "file" {
            return Ok(Arc::clone(&self.local));
        }
        let wanted = key(url);
        if let Some(store) = self.stores.lock().get(&wanted) {
            return Ok(Arc::clone(store));
        }
        if is_of_secret(url.username()) {
            return Err(QueryError::new(
                ErrorClass::Precondition,
                "the secret of this location was replaced or dropped meanwhile",
            )
            .with_hint("run the statement again"));
        }
        if !url.username().is_empty() {
            return Err(LocationError::NotAllowed {
                location: redacted(url.as_str()),
            }
            .into());
        }
        self.locations.check_authority(url)?;
        // A plan that carries a location of its own: only a secret for all of the bucket can be meant.
        let mut whole = url.clone();
        whole.set_path("/");
        if let Some(secret) = self.secrets.best(&whole)? {
            let bound = self.bind_secret(&whole, &secret)?;
            return self.find_or_build(&bound);
        }
        let store = self.open(&wanted, self.building(url, &StoreConfig::of_environment()))?;
        self.stores.lock().insert(wanted, Arc::clone(&store));
        Ok(store)
    }
}

impl ObjectStoreRegistry for StoreRegistry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        // The local store is the guarded one, whatever a library would like to put in its place.
        if url.scheme() == "file" {
            return Some(Arc::clone(&self.local));
        }
        self.stores.lock().insert(key(url), store)
    }

    fn deregister_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        let removed = self.stores.lock().remove(&key(url));
        removed.ok_or_else(|| external(QueryError::invalid(format!("no store for {}", redacted(url.as_str())))))
    }

    fn get_store(&self, url: &Url) -> DataFusionResult<Arc<dyn ObjectStore>> {
        self.find_or_build(url).map_err(external)
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What stands before the host of a URL that a secret was chosen for.
fn user_part(generation: u64) -> String {
    format!("s{generation}")
}

fn is_of_secret(user: &str) -> bool {
    user.strip_prefix('s')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn key(url: &Url) -> String {
    format!(
        "{}://{}",
        url.scheme(),
        &url[url::Position::BeforeUsername..url::Position::AfterPort]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::path::Path;
    use trireme_lake::LakeOptions;

    fn registry(folder: &std::path::Path, allowed: &[&str]) -> StoreRegistry {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        let locations = Arc::new(Locations::new(folder, &allowed).unwrap());
        StoreRegistry::new(locations, Lake::new(LakeOptions::default()))
    }

    #[test]
    fn stores_behind_the_list_only() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path(), &["s3://bucket/x", "https://example.org/d"]);
        assert!(registry.get_store(&Url::parse("s3://bucket").unwrap()).is_ok());
        assert!(registry.get_store(&Url::parse("https://example.org").unwrap()).is_ok());
        assert!(registry.get_store(&Url::parse("s3://other").unwrap()).is_err());
        assert!(registry.get_store(&Url::parse("s3://o123@bucket").unwrap()).is_err());
        assert!(
            registry
                .get_store(&Url::parse("http://169.254.169.254").unwrap())
                .is_err()
        );
        assert!(registry.get_store(&Url::parse("delta-rs://x").unwrap()).is_err());
    }

    #[test]
    fn an_endpoint_must_be_allowed_too() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path(), &["s3://bucket", "http://minio:9000"]);
        let url = Url::parse("s3://bucket/x").unwrap();
        let options = |endpoint: &str| {
            let pairs = [
                ("aws.endpoint", endpoint),
                ("aws.allow_http", "true"),
                ("aws.region", "eu"),
                ("aws.secret_access_key", "hunter2"),
                ("aws.access_key_id", "id"),
            ];
            StoreOptions::from_options(
                "s3",
                &pairs
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
            .unwrap()
        };
        assert!(registry.bind(&url, &options("http://169.254.169.254")).is_err());
        assert!(registry.bind(&url, &options("http://internal:80")).is_err());
        let bound = registry.bind(&url, &options("http://minio:9000")).unwrap();
        assert!(!bound.as_str().contains("hunter2"));
        let store = registry.get_store(&bound).unwrap();
        assert!(!format!("{store:?} {registry:?}").contains("hunter2"));
    }

    #[test]
    fn every_vendor_takes_its_options() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path(), &["az://container", "gs://bucket"]);
        let bind = |url: &str, pairs: &[(&str, &str)]| {
            let url = Url::parse(url).unwrap();
            let options = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            registry.bind(&url, &StoreOptions::from_options(url.scheme(), &options).unwrap())
        };
        let azure = [
            ("azure.storage_account_name", "me"),
            ("azure.storage_account_key", "aHVudGVyMg=="),
        ];
        assert!(bind("az://container/x", &azure).is_ok());
        assert!(bind("gs://bucket/x", &[("gcp.skip_signature", "true")]).is_ok());
        let error = bind("gs://bucket/x", &[("gcp.service_account_key", "hunter2")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn the_local_store_hides_private_files_and_refuses_links_out() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.csv"), "x\n").unwrap();
        for file in [
            "t/a.csv",
            "t/_tmp/b.csv",
            "t/.c.csv",
            ".trireme/tables/1/d.csv",
            ".trireme/catalog.json",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x\n").unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("secret.csv"), folder.path().join("t/link.csv")).unwrap();
        let registry = registry(folder.path(), &[]);
        let store = registry.get_store(&Url::parse("file:///").unwrap()).unwrap();
        let at = |name: &str| Path::from_absolute_path(folder.path().canonicalize().unwrap().join(name)).unwrap();
        let mut names: Vec<String> = store
            .list(Some(&at("")))
            .map_ok(|meta| meta.location.filename().unwrap().to_owned())
            .try_collect()
            .await
            .unwrap();
        names.sort();
        assert_eq!(names, ["a.csv", "link.csv"]);
        assert!(store.get(&at("t/a.csv")).await.is_ok());
        assert!(store.get(&at(".trireme/tables/1/d.csv")).await.is_ok());
        assert!(store.get(&at(".trireme/catalog.json")).await.is_err());
        let link = folder.path().canonicalize().unwrap().join("t");
        assert!(
            store
                .get(&Path::parse(format!("{}/link.csv", link.to_str().unwrap())).unwrap())
                .await
                .is_err()
        );
        assert!(store.put(&at("t/new.csv"), "y".into()).await.is_ok());
        assert!(store.put(&at("new/folder/new.csv"), "y".into()).await.is_ok());
        assert!(store.put(&at(".trireme/tables/1/e.csv"), "y".into()).await.is_err());
        assert!(
            store
                .put(
                    &Path::from_absolute_path(outside.path().join("n.csv")).unwrap(),
                    "y".into()
                )
                .await
                .is_err()
        );
    }
}
