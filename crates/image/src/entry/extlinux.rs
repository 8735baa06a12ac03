//! `extlinux.conf`, as SYSLINUX and U-Boot read it.

use super::{BootEntry, directive, join};

#[derive(Default)]
struct Label<'a> {
    name: &'a str,
    kernel: Option<&'a str>,
    initrds: Vec<String>,
    append: Option<&'a str>,
}

/// The entry of `DEFAULT` (or `MENU DEFAULT`), else the first. A relative path is relative to `dir`, the directory of the
/// configuration.
pub(crate) fn parse(text: &str, dir: &str) -> Option<BootEntry> {
    let mut labels: Vec<Label<'_>> = Vec::new();
    let mut default = None;
    let mut append_to_all = None;
    for (name, value) in text.lines().filter_map(directive) {
        let label = labels.last_mut();
        match (name.to_ascii_lowercase().as_str(), label) {
            ("label", _) => labels.push(Label {
                name: value,
                ..Label::default()
            }),
            ("default", _) => default = Some(value),
            ("menu", Some(label)) if value.eq_ignore_ascii_case("default") => default = Some(label.name),
            ("linux" | "kernel", Some(label)) => label.kernel = Some(value),
            ("initrd", Some(label)) => label.initrds = split_initrds(value),
            ("append", Some(label)) => label.append = Some(value),
            ("append", None) => append_to_all = Some(value),
            _ => {}
        }
    }
    let bootable = |label: &&Label<'_>| label.kernel.is_some();
    let label = labels
        .iter()
        .find(|label| Some(label.name) == default && bootable(label))
        .or_else(|| labels.iter().find(bootable))?;
    // "APPEND -" is how a label refuses the common one.
    let cmdline = label
        .append
        .or(append_to_all)
        .filter(|append| *append != "-")
        .unwrap_or_default();
    let mut initrds = label.initrds.clone();
    if initrds.is_empty() {
        let option = cmdline
            .split_whitespace()
            .find_map(|word| word.strip_prefix("initrd="));
        initrds = option.map(split_initrds).unwrap_or_default();
    }
    Some(BootEntry {
        kernel: absolute(label.kernel?, dir),
        initrds: initrds.iter().map(|path| absolute(path, dir)).collect(),
        cmdline: join([cmdline]),
    })
}

fn split_initrds(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

fn absolute(path: &str, dir: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{dir}/{path}")
    }
}
