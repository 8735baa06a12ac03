//! Fuzz targets: what guests send to their DHCP server, their resolver and the metadata service. `scripts/fuzz` runs them; the
//! tests here, on the corpus only.

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("dhcp_request", crate::dhcp::fuzz::request),
    ("dns_question", crate::dns::fuzz::question),
    ("imds_request", crate::imds::fuzz::request),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
