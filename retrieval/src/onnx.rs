//! Finds and loads onnxruntime before any model asks for it: a missing or old library is then an error, not a panic.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::error::RetrievalError;

const HELP: &str = "set onnxruntime.library to libonnxruntime.so 1.24 or newer (it is part of the Python package \
                    onnxruntime), or choose another kind of model";

/// Loads the library once for the process; later calls return the first result.
///
/// Searched in this order: `library` where it is set (the configuration also takes `ORT_DYLIB_PATH`), `runtime` below the state folder, the package
/// `onnxruntime` of `python3`.
///
/// # Errors
/// When no library is found, or the one found cannot be used.
pub fn load_runtime(library: &Path, state_dir: &Path) -> Result<(), RetrievalError> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let result = LOADED.get_or_init(|| {
        let path = find(library, state_dir).ok_or_else(|| format!("was not found; {HELP}"))?;
        load(&path)
    });
    result.clone().map_err(|message| RetrievalError::Model { what: "onnxruntime.library".to_owned(), message })
}

pub(crate) fn load(path: &Path) -> Result<(), String> {
    match ort::init_from(path) {
        // Environments are made with the sessions; only the loaded library is wanted here.
        Ok(_builder) => {
            tracing::info!(path = %path.display(), "onnxruntime is loaded");
            Ok(())
        }
        Err(error) => Err(format!("{error}; {HELP}")),
    }
}

fn find(library: &Path, state_dir: &Path) -> Option<PathBuf> {
    if !library.as_os_str().is_empty() {
        return Some(library.to_owned());
    }
    library_in(&state_dir.join("runtime")).or_else(|| library_in(&python_package()?.join("capi")))
}

fn library_in(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libonnxruntime.") && !name.contains("providers")
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).max()
}

fn python_package() -> Option<PathBuf> {
    let program = "import importlib.util as u; print(u.find_spec('onnxruntime').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-I", "-c", program]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| output.status.success() && path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_none_is_an_error_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so.1.31.1");
        std::fs::write(&path, "no library").unwrap();
        assert_eq!(library_in(folder.path()), Some(path.clone()));
        assert_eq!(find(&path, folder.path()), Some(path.clone()));
        let error = load(&path).unwrap_err();
        assert!(error.contains("onnxruntime.library"), "{error}");
    }
}
