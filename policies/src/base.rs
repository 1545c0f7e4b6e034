use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;

use crate::error::{PolicyError, Result};

/// A header longer than this is not read: the largest models stay far below it.
const HEADER_MAX: u64 = 100 << 20;

/// The model that adapters are checked against: its identity, and the shapes of its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// BLAKE3 over names, lengths and bytes of the weight files, 64 hex digits.
    pub hash: String,
    /// Shape of each tensor by name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl BaseModel {
    /// Reads the weight files (`*.safetensors`, adapters left out) of a model folder.
    ///
    /// Every byte is hashed once, about a second for each gigabyte; the weights are not kept.
    ///
    /// # Errors
    /// There are no weight files, or one cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let files = weight_files(dir)?;
        let mut hasher = blake3::Hasher::new();
        let mut shapes = BTreeMap::new();
        for path in &files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut file = File::open(path).map_err(PolicyError::io(path))?;
            let length = file.metadata().map_err(PolicyError::io(path))?.len();
            shapes.extend(shapes_of(path, &mut file, length)?);
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&length.to_le_bytes());
            let file = File::open(path).map_err(PolicyError::io(path))?;
            hasher.update_reader(file).map_err(PolicyError::io(path))?;
        }
        Ok(Self { hash: hasher.finalize().to_hex().to_string(), shapes })
    }
}

/// The weight files in the order of their names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(PolicyError::io(dir))? {
        let path = entry.map_err(PolicyError::io(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") && !name.starts_with("adapter") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(PolicyError::refused(dir, "no *.safetensors file", "name the folder of the base model"));
    }
    Ok(files)
}

/// The shapes in the header of a safetensors file: eight bytes of length, then JSON.
fn shapes_of(path: &Path, file: &mut File, length: u64) -> Result<BTreeMap<String, Vec<usize>>> {
    let refused = |reason: String| PolicyError::refused(path, reason, "copy the base model again");
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|error| refused(format!("no safetensors header ({error})")))?;
    let size = u64::from_le_bytes(size);
    if size > HEADER_MAX.min(length) {
        return Err(refused(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header).map_err(PolicyError::io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| refused(error.to_string()))?;
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect())
}
