//! What a person types to name a rewriter or a share, checked where it is read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A rewriter, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewriterName {
    /// The question as typed.
    PassThrough,
    /// What careful writers wrote.
    Gold,
    /// The rewriter of the settings.
    Configured,
    /// A model folder, or a `.gguf` file; with the folder of an adapter for it.
    Model(PathBuf, Option<PathBuf>),
    /// A rewrite service, by its address.
    Service(String),
}

impl FromStr for RewriterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pass_through" | "pass-through" | "raw" => Ok(Self::PassThrough),
            "gold" => Ok(Self::Gold),
            "configured" => Ok(Self::Configured),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::Service(url.to_owned())),
            path if Path::new(path).exists() => Ok(Self::Model(PathBuf::from(path), None)),
            both if both.split_once('+').is_some_and(|(a, b)| Path::new(a).exists() && Path::new(b).exists()) => {
                let (model, adapter) = both.split_once('+').unwrap_or_default();
                Ok(Self::Model(PathBuf::from(model), Some(PathBuf::from(adapter))))
            }
            _ => Err(
                "no such folder, nor a name: give pass_through, gold, configured, a model folder, a model folder + an \
                      adapter's, or the http address of a rewrite service"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for RewriterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PassThrough => f.write_str("pass_through"),
            Self::Gold => f.write_str("gold"),
            Self::Configured => f.write_str("configured"),
            Self::Model(path, None) => write!(f, "{}", path.display()),
            Self::Model(path, Some(adapter)) => write!(f, "{}+{}", path.display(), adapter.display()),
            Self::Service(url) => f.write_str(url),
        }
    }
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(pub f64);

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
        number.map(Self).ok_or_else(|| "must be a number from 0 to 1".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_folders_and_addresses_are_told_apart() {
        assert_eq!("raw".parse(), Ok(RewriterName::PassThrough));
        assert_eq!("gold".parse(), Ok(RewriterName::Gold));
        assert_eq!("http://x:1".parse(), Ok(RewriterName::Service("http://x:1".to_owned())));
        let folder = env!("CARGO_MANIFEST_DIR");
        assert_eq!(folder.parse(), Ok(RewriterName::Model(PathBuf::from(folder), None)));
        let both = format!("{folder}+{folder}");
        let parsed: RewriterName = both.parse().unwrap();
        assert_eq!(parsed, RewriterName::Model(PathBuf::from(folder), Some(PathBuf::from(folder))));
        assert_eq!(parsed.to_string(), both);
        let error = "models/no-such".parse::<RewriterName>().unwrap_err();
        assert!(error.contains("pass_through, gold"), "{error}");
    }

    #[test]
    fn a_share_is_within_its_bounds() {
        assert_eq!("0.25".parse(), Ok(Fraction(0.25)));
        for wrong in ["-0.1", "1.5", "NaN", "much"] {
            assert!(wrong.parse::<Fraction>().is_err(), "{wrong}");
        }
    }
}
