//! Whether a model fits, said before it is loaded: a machine that runs out of memory kills without a message.
use std::fmt;
use std::io::Read;
use std::path::Path;

use recast_config::Quantization;
use recast_model::Qwen3Config;
use serde_json::Value;

use crate::{ModelFiles, Result, RewriteError};

/// Code, threads and activations of an engine beside its weights; measured 30 to 40 MiB for a model of 0.5 MiB.
const ENGINE: u64 = 64 << 20;
/// The header of a safetensors file is this long at most.
const MOST_HEADER: u64 = 100 << 20;

/// What a model takes in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Weights in the form they are computed with.
    pub weights: u64,
    /// Keys and values of all sequences that run at once.
    pub cache: u64,
    /// The engine itself.
    pub engine: u64,
}

impl MemoryNeed {
    /// Everything together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.engine)
    }

    /// Estimates the need of a model from the sizes that its files state.
    ///
    /// `bytes` is the width of a computed number (4 on a processor, 2 on a GPU), `tokens` the longest sequence,
    /// `sequences` how many run at once.
    ///
    /// # Errors
    /// When a weight file is shorter than its own header says, or no safetensors file at all.
    pub fn of(
        files: &ModelFiles,
        config: Option<&Qwen3Config>,
        quantization: Quantization,
        bytes: u64,
        tokens: usize,
        sequences: usize,
    ) -> Result<Self> {
        let (weights, cache) = match files {
            // its blocks stay as they are; the cache is small beside them and its shape is inside the file
            ModelFiles::Gguf { weights, .. } => {
                let size = std::fs::metadata(weights).map_err(|error| RewriteError::load(weights, error))?.len();
                (size, size / 20)
            }
            ModelFiles::Safetensors { weights, .. } => {
                let mut numbers = Numbers::default();
                for file in weights {
                    numbers.add(file)?;
                }
                let linear = (numbers.linear as f64 * bits_per_weight(quantization, bytes) / 8.0) as u64;
                let cache = config.map_or(0, |config| cache_bytes(config, bytes, tokens) * sequences as u64);
                (linear.saturating_add(numbers.other.saturating_mul(bytes)), cache)
            }
        };
        Ok(Self { weights, cache, engine: ENGINE })
    }

    /// Compares the need with what there is.
    ///
    /// # Errors
    /// When the model does not fit; the message has both figures and says what to do.
    pub fn check(self, path: &Path, available: u64) -> Result<()> {
        if self.total() > available {
            return Err(RewriteError::Memory { path: path.to_owned(), need: self, available });
        }
        Ok(())
    }
}

impl fmt::Display for MemoryNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "weights {} MiB, cache {} MiB, engine {} MiB",
            self.weights >> 20,
            self.cache >> 20,
            self.engine >> 20
        )
    }
}

/// Bytes of keys and values of one sequence: two tensors a layer.
fn cache_bytes(config: &Qwen3Config, bytes: u64, tokens: usize) -> u64 {
    let numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * tokens;
    numbers as u64 * bytes
}

/// Bits that a weight of a linear layer takes, scales included (k-quants: blocks of 256; `q8_0`: blocks of 32).
fn bits_per_weight(quantization: Quantization, bytes: u64) -> f64 {
    match quantization {
        Quantization::None => bytes as f64 * 8.0,
        Quantization::Q4k => 4.5,
        Quantization::Q6k => 6.5625,
        Quantization::Q8_0 => 8.5,
    }
}

/// Counts of numbers in weight files; quantisation changes only those of linear layers.
#[derive(Default)]
struct Numbers {
    linear: u64,
    other: u64,
}

impl Numbers {
    fn add(&mut self, path: &Path) -> Result<()> {
        let wrong = |reason: String| RewriteError::load(path, reason);
        let mut file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        let size = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .map_err(|_| wrong("it is too short for a safetensors file: copy it again".to_owned()))?;
        let header_size = u64::from_le_bytes(length);
        if header_size > MOST_HEADER.min(size.saturating_sub(8)) {
            return Err(wrong("its header is damaged or cut off: copy the file again".to_owned()));
        }
        let mut header = vec![0; header_size as usize];
        file.read_exact(&mut header).map_err(|error| wrong(error.to_string()))?;
        let header: serde_json::Map<String, Value> = serde_json::from_slice(&header)
            .map_err(|error| wrong(format!("its header is damaged ({error}): copy the file again")))?;
        let mut end = 0;
        for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            let numbers =
                |value: Option<&Value>| -> Option<Vec<u64>> { value?.as_array()?.iter().map(Value::as_u64).collect() };
            let (Some(shape), Some(offsets)) = (numbers(tensor.get("shape")), numbers(tensor.get("data_offsets")))
            else {
                return Err(wrong(format!("its header does not describe {name}: copy the file again")));
            };
            let count = shape.iter().fold(1u64, |count, size| count.saturating_mul(*size));
            let sum = if shape.len() == 2 && !name.contains("embed") { &mut self.linear } else { &mut self.other };
            *sum = sum.saturating_add(count);
            end = end.max(offsets.last().copied().unwrap_or(0));
        }
        let whole = end.saturating_add(8 + header_size);
        if size < whole {
            return Err(wrong(format!("it is cut off at {size} of {whole} bytes: copy it again")));
        }
        Ok(())
    }
}

/// Bytes of memory that a new model may take: what the kernel calls available, or less where a control group says so.
/// `None` where the system does not tell.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let number = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    // pages of files count as used there, but go when they are needed
    let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok()).unwrap_or(0u64);
    let used = number("memory.current").unwrap_or(0).saturating_sub(files);
    let group = number("memory.max").map(|max| max.saturating_sub(used));
    Some(group.map_or(kib << 10, |group| group.min(kib << 10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &Value, data: usize) -> (tempfile::TempDir, ModelFiles) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        std::fs::write(&path, bytes).unwrap();
        let files = ModelFiles::Safetensors {
            config: path.clone(),
            tokenizer: path.clone(),
            weights: vec![path],
            adapter: None,
        };
        (dir, files)
    }

    fn header() -> Value {
        serde_json::json!({
            "__metadata__": {"format": "pt"},
            "model.embed_tokens.weight": {"dtype": "BF16", "shape": [100, 8], "data_offsets": [0, 1600]},
            "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [64, 8], "data_offsets": [1600, 2624]},
        })
    }

    #[test]
    fn weights_are_counted_in_the_form_they_are_computed_with() {
        let (_dir, files) = file(&header(), 2624);
        let need = |quantization, bytes| MemoryNeed::of(&files, None, quantization, bytes, 10, 1).unwrap().weights;
        assert_eq!(need(Quantization::None, 4), 800 * 4 + 512 * 4);
        assert_eq!(need(Quantization::None, 2), 800 * 2 + 512 * 2);
        assert_eq!(need(Quantization::Q8_0, 4), 800 * 4 + 544);
    }

    #[test]
    fn a_file_that_was_cut_off_is_named() {
        let (_dir, files) = file(&header(), 2000);
        let error = MemoryNeed::of(&files, None, Quantization::None, 4, 10, 1).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("cut off"), "{error}");
        for bytes in [&b"abc"[..], &[255; 64]] {
            let ModelFiles::Safetensors { weights, .. } = &files else { unreachable!() };
            std::fs::write(&weights[0], bytes).unwrap();
            assert!(MemoryNeed::of(&files, None, Quantization::None, 4, 10, 1).is_err());
        }
    }

    #[test]
    fn the_refusal_has_both_figures_and_a_way_out() {
        let need = MemoryNeed { weights: 33 << 30, cache: 1 << 30, engine: 0 };
        assert!(need.check(Path::new("m"), 40 << 30).is_ok());
        let text = need.check(Path::new("models/8b"), 24 << 30).unwrap_err().to_string();
        for part in ["models/8b", "34816 MiB", "24576 MiB", "rewriter.quantization", "rewriter.memory_limit_mib"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(available_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
