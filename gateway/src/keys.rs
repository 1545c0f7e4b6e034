//! API keys: `rk_<id>_<secret>`. The file holds ids and hashes of secrets, never a secret.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recast_domain::{ErrorKind, TenantId};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask questions.
    Serve,
    /// Have completions scored for training.
    Train,
    /// Also write documents and read episodes.
    Admin,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Serve => "serve",
            Self::Train => "train",
            Self::Admin => "admin",
        })
    }
}

impl Scope {
    /// Whether a key of this scope may do what `wanted` allows.
    #[must_use]
    pub fn covers(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin
    }
}

/// What is kept of a key. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The public part; 12 hexadecimal digits.
    pub id: String,
    /// BLAKE3 of the secret part, hexadecimal. The secret has 256 random bits, so no slow hash is needed.
    pub hash: String,
    /// The tenant that the key speaks for.
    pub tenant: TenantId,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends; never if absent.
    pub expires_ms: Option<u64>,
    /// When it was ended by hand.
    pub revoked_ms: Option<u64>,
}

impl KeyRecord {
    fn live(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires| now_ms < expires)
    }
}

/// A key that was just made: the only moment its text exists here.
#[derive(Debug)]
pub struct MintedKey {
    /// The public part.
    pub id: String,
    /// The whole key, `rk_<id>_<secret>`.
    pub text: SecretString,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing failed.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what this program wrote.
    #[error("key file {path} is damaged ({reason}): restore it, or delete it and create new keys")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No key has this id.
    #[error("no key has the id {0:?}: list the keys to see their ids")]
    Unknown(String),
    /// A revoked or expired key cannot be rotated.
    #[error("key {0:?} has ended: create a new one")]
    Ended(String),
    /// The system has no randomness to give.
    #[error("no random bytes from the system: {0}")]
    Random(String),
}

impl KeyError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::Random(_) => ErrorKind::Unavailable,
            Self::Damaged { .. } => ErrorKind::Invalid,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::Ended(_) => ErrorKind::Conflict,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    keys: Vec<KeyRecord>,
}

/// The key file of a state folder; each change is atomic, durable and safe against other processes.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn create(&self, tenant: &TenantId, scope: Scope, lifetime: Option<Duration>) -> Result<MintedKey, KeyError> {
        self.change(|contents, now| {
            let (minted, record) = mint(tenant.clone(), scope, now, lifetime.map(|time| now + millis(time)))?;
            contents.keys.push(record);
            Ok(minted)
        })
    }

    /// Makes a successor with the same tenant and scope; the old key works for `grace` more.
    ///
    /// # Errors
    /// When no live key has this id, or the file cannot be read or written.
    pub fn rotate(&self, id: &str, grace: Duration) -> Result<MintedKey, KeyError> {
        self.change(|contents, now| {
            let old = find(contents, id)?;
            if !old.live(now) {
                return Err(KeyError::Ended(id.to_owned()));
            }
            // The successor lives as long as the old key was meant to, counted from now.
            let expires = old.expires_ms.map(|expires| now + expires.saturating_sub(old.created_ms));
            let end = now + millis(grace);
            old.expires_ms = Some(old.expires_ms.map_or(end, |expires| expires.min(end)));
            let (minted, record) = mint(old.tenant.clone(), old.scope, now, expires)?;
            contents.keys.push(record);
            Ok(minted)
        })
    }

    /// Ends a key at once; ending it twice is fine.
    ///
    /// # Errors
    /// When no key has this id, or the file cannot be read or written.
    pub fn revoke(&self, id: &str) -> Result<(), KeyError> {
        self.change(|contents, now| {
            find(contents, id)?.revoked_ms.get_or_insert(now);
            Ok(())
        })
    }

    /// All keys, oldest first. A file that does not exist holds none.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn list(&self) -> Result<Vec<KeyRecord>, KeyError> {
        Ok(self.read()?.keys)
    }

    /// Says, cheaply, whether the file may have changed: two equal stamps mean that it has not.
    #[must_use]
    pub fn stamp(&self) -> Option<(SystemTime, u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(&self.path).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    }

    fn io(&self) -> impl Fn(std::io::Error) -> KeyError + '_ {
        |source| KeyError::Io { path: self.path.clone(), source }
    }

    fn read(&self) -> Result<Contents, KeyError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Contents { version: 1, keys: vec![] });
            }
            Err(error) => return Err(self.io()(error)),
        };
        let damaged = |reason: String| KeyError::Damaged { path: self.path.clone(), reason };
        let contents: Contents = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if contents.version != 1 {
            return Err(damaged(format!("version {} is not known", contents.version)));
        }
        if let Some(key) = contents.keys.iter().find(|key| blake3::Hash::from_hex(&key.hash).is_err()) {
            return Err(damaged(format!("the hash of key {:?} is not one", key.id)));
        }
        Ok(contents)
    }

    fn change<T>(&self, edit: impl FnOnce(&mut Contents, u64) -> Result<T, KeyError>) -> Result<T, KeyError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(self.io())?;
        // The lock is on a file of its own, because the key file itself is replaced; closing it unlocks.
        let lock = File::create(self.path.with_extension("lock")).map_err(self.io())?;
        lock.lock().map_err(self.io())?;
        let mut contents = self.read()?;
        let result = edit(&mut contents, now_ms())?;
        self.replace(folder, &contents).map_err(self.io())?;
        Ok(result)
    }

    fn replace(&self, folder: &Path, contents: &Contents) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let fresh = self.path.with_extension("new");
        let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(contents)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn find<'a>(contents: &'a mut Contents, id: &str) -> Result<&'a mut KeyRecord, KeyError> {
    contents.keys.iter_mut().find(|key| key.id == id).ok_or_else(|| KeyError::Unknown(id.to_owned()))
}

fn mint(tenant: TenantId, scope: Scope, now: u64, expires_ms: Option<u64>) -> Result<(MintedKey, KeyRecord), KeyError> {
    let mut bytes = [0; 6 + 32];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    let (id, secret) = (hex(&bytes[..6]), hex(&bytes[6..]));
    let hash = blake3::hash(secret.as_bytes()).to_hex().to_string();
    let text = SecretString::from(format!("rk_{id}_{secret}"));
    let record = KeyRecord { id: id.clone(), hash, tenant, scope, created_ms: now, expires_ms, revoked_ms: None };
    Ok((MintedKey { id, text }, record))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant that the key speaks for.
    pub tenant: TenantId,
    /// What the key may do.
    pub scope: Scope,
}

/// All keys, ready for look-up.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<String, (blake3::Hash, KeyRecord)>,
}

impl KeyRing {
    /// A ring of these records; one whose hash is not one is left out.
    #[must_use]
    pub fn new(records: Vec<KeyRecord>) -> Self {
        let entry = |record: KeyRecord| Some((record.id.clone(), (blake3::Hash::from_hex(&record.hash).ok()?, record)));
        Self { keys: records.into_iter().filter_map(entry).collect() }
    }

    /// Whether nobody can call at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Who holds this key, or `None` for every kind of wrong key alike.
    #[must_use]
    pub fn verify(&self, key: &str, now_ms: u64) -> Option<Caller> {
        let (id, secret) = key.strip_prefix("rk_")?.split_once('_')?;
        let (hash, record) = self.keys.get(id)?;
        let given = blake3::hash(secret.as_bytes());
        let equal: bool = given.as_bytes().ct_eq(hash.as_bytes()).into();
        (equal && record.live(now_ms)).then(|| Caller { tenant: record.tenant.clone(), scope: record.scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn file() -> (tempfile::TempDir, KeyFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("state/keys.json"));
        (folder, file)
    }

    fn tenant() -> TenantId {
        "alpha".parse().unwrap()
    }

    #[test]
    fn a_key_opens_and_its_secret_is_not_kept() {
        let (folder, file) = file();
        let key = file.create(&tenant(), Scope::Serve, None).unwrap();
        let ring = KeyRing::new(file.list().unwrap());
        let text = key.text.expose_secret();
        assert_eq!(ring.verify(text, now_ms()).unwrap().tenant, tenant());
        let stored = std::fs::read_to_string(folder.path().join("state/keys.json")).unwrap();
        assert!(!stored.contains(text.rsplit('_').next().unwrap()));
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("state/keys.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn wrong_keys_are_all_refused() {
        let (_folder, file) = file();
        let key = file.create(&tenant(), Scope::Serve, None).unwrap();
        let ring = KeyRing::new(file.list().unwrap());
        let text = key.text.expose_secret();
        let wrong_secret = format!("rk_{}_{}", key.id, "0".repeat(64));
        for wrong in ["", "rk", "rk_", "rk__", "rk_x_y", &text[..text.len() - 1], &text[3..], &wrong_secret] {
            assert_eq!(ring.verify(wrong, now_ms()), None, "{wrong:?}");
        }
    }

    #[test]
    fn rotation_leaves_the_old_key_a_grace_period() {
        let (_folder, file) = file();
        let old = file.create(&tenant(), Scope::Admin, None).unwrap();
        let new = file.rotate(&old.id, Duration::from_secs(60)).unwrap();
        let ring = KeyRing::new(file.list().unwrap());
        let now = now_ms();
        assert!(ring.verify(old.text.expose_secret(), now).is_some());
        assert!(ring.verify(old.text.expose_secret(), now + 61_000).is_none());
        assert_eq!(ring.verify(new.text.expose_secret(), now + 61_000).unwrap().scope, Scope::Admin);
    }

    #[test]
    fn revoked_and_expired_keys_end() {
        let (_folder, file) = file();
        let key = file.create(&tenant(), Scope::Serve, None).unwrap();
        let short = file.create(&tenant(), Scope::Serve, Some(Duration::from_secs(5))).unwrap();
        file.revoke(&key.id).unwrap();
        let ring = KeyRing::new(file.list().unwrap());
        assert!(ring.verify(key.text.expose_secret(), now_ms()).is_none());
        assert!(ring.verify(short.text.expose_secret(), now_ms()).is_some());
        assert!(ring.verify(short.text.expose_secret(), now_ms() + 5_001).is_none());
        assert!(matches!(file.rotate(&key.id, Duration::ZERO), Err(KeyError::Ended(_))));
        assert!(matches!(file.revoke("nobody"), Err(KeyError::Unknown(_))));
    }

    #[test]
    fn writers_in_parallel_lose_nothing() {
        let (_folder, file) = file();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| file.create(&tenant(), Scope::Serve, None).unwrap());
            }
        });
        assert_eq!(file.list().unwrap().len(), 8);
    }

    #[test]
    fn a_damaged_file_is_said() {
        let (folder, file) = file();
        file.create(&tenant(), Scope::Serve, None).unwrap();
        std::fs::write(folder.path().join("state/keys.json"), "{").unwrap();
        assert!(file.list().unwrap_err().to_string().contains("damaged"));
    }
}
