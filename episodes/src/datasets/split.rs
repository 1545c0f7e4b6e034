//! Which split a conversation belongs to, by a seeded hash of it.

use recast_config::DatasetSettings;
use recast_domain::{Split, TenantId};
use sha2::{Digest, Sha256};

/// All splits, in the order of the files.
pub const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// The name of a split, as files have it.
#[must_use]
pub fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

/// The split of a conversation: a pure function of the seed, the tenant and its id, whatever else is in the dataset.
#[must_use]
pub fn of_conversation(seed: u64, tenant: &TenantId, conversation: &str, settings: &DatasetSettings) -> Split {
    let place = draw(seed, &["split", tenant.as_str(), conversation]);
    if place < settings.test_share {
        Split::Test
    } else if place < settings.test_share + settings.val_share {
        Split::Val
    } else {
        Split::Train
    }
}

/// A number in [0, 1) out of the seed and texts.
pub(crate) fn draw(seed: u64, texts: &[&str]) -> f64 {
    // 53 bits are what a float holds exactly
    (bits(seed, texts) >> 11) as f64 / (1_u64 << 53) as f64
}

/// 64 bits out of the seed and texts.
pub(crate) fn bits(seed: u64, texts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(first)
}
