use recast_config::TenantProfile;
use recast_model::PromptStyle;

/// Goes up when the renderer lays a prompt out differently, so that rewrites of the older layout are not reused.
const LAYOUT: u32 = 1;

/// Hash (16 hex digits) of what a prompt holds beside the conversation: layout, style, tenant and its instructions.
#[must_use]
pub fn prompt_hash(tenant: &TenantProfile, style: PromptStyle) -> String {
    let style = match style {
        PromptStyle::Chat => "chat",
        PromptStyle::Compact => "compact",
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&LAYOUT.to_le_bytes());
    for part in [style, tenant.id.as_str(), &tenant.system_prompt] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str, system_prompt: &str) -> TenantProfile {
        TenantProfile {
            id: id.parse().unwrap(),
            name: String::new(),
            domain: String::new(),
            system_prompt: system_prompt.to_owned(),
            synonyms: Default::default(),
            term_expansion: Default::default(),
            protected_terms: Vec::new(),
            redact: false,
            retention_days: None,
        }
    }

    #[test]
    fn each_part_counts_and_parts_do_not_run_together() {
        let hashes = [
            prompt_hash(&tenant("ab", "c"), PromptStyle::Chat),
            prompt_hash(&tenant("a", "bc"), PromptStyle::Chat),
            prompt_hash(&tenant("ab", "c"), PromptStyle::Compact),
        ];
        assert!(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
        assert_eq!(hashes[0], prompt_hash(&tenant("ab", "c"), PromptStyle::Chat));
        assert_eq!(hashes[0].len(), 16);
    }
}
