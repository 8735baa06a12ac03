//! `extlinux.conf` and `syslinux.cfg`, as SYSLINUX and U-Boot read them (wiki.syslinux.org, "Config").

use super::{BootEntry, Undecided, directive};
use crate::volumes::Place;

/// Directives that change nothing that decides what is booted.
const HARMLESS: &[&str] = &[
    "allowoptions",
    "console",
    "display",
    "font",
    "implicit",
    "kbdmap",
    "nocomplete",
    "noescape",
    "nohalt",
    "ontimeout",
    "path",
    "prompt",
    "say",
    "serial",
    "timeout",
    "totaltimeout",
    "verbose",
    // Device trees, which x86 does not have.
    "fdt",
    "fdtdir",
    "devicetree",
    "devicetreedir",
];
/// File name extensions that SYSLINUX takes for something else than a Linux kernel.
const OTHER_KINDS: &[&str] = &[".0", ".bin", ".bs", ".bss", ".c32", ".cbt", ".com", ".img"];
/// Menus: they take `MENU DEFAULT` before `DEFAULT`.
const MENUS: &[&str] = &["menu.c32", "vesamenu.c32"];
const MAX_LABELS: usize = 10_000;

#[derive(Default)]
struct Label<'a> {
    name: &'a str,
    kernel: Option<&'a str>,
    initrd: Option<&'a str>,
    append: Option<&'a str>,
    /// A directive that is not followed.
    unknown: Option<String>,
}

#[derive(Default)]
struct Configuration<'a> {
    labels: Vec<Label<'a>>,
    default: Option<&'a str>,
    menu_default: Option<&'a str>,
    ui: Option<&'a str>,
    append: Option<&'a str>,
}

/// The default entry. A relative path is relative to `directory`, in which the configuration is.
///
/// # Errors
/// A directive that decides the entry is not understood.
pub(crate) fn parse(text: &str, part: usize, directory: &str, file: &str) -> Result<BootEntry, Undecided> {
    let configuration =
        read(text).map_err(|(line, what)| Undecided::because(format!("{file}: line {line}"), what))?;
    let refused = |what: String| Undecided::because(file, what);
    let label = default(&configuration).map_err(refused)?;
    entry(label, &configuration, part, directory)
        .map_err(|what| refused(format!("the label {}: {what}", label.name)))
}

fn read(text: &str) -> Result<Configuration<'_>, (usize, String)> {
    let mut found = Configuration::default();
    let mut help = false;
    for (number, line) in text.lines().enumerate() {
        let Some((name, value)) = directive(line) else {
            continue;
        };
        let name = name.to_ascii_lowercase();
        if help {
            help = name != "endtext";
            continue;
        }
        let refused = |what: String| Err((number + 1, what));
        let is_function_key =
            name.len() <= 3 && name.starts_with('f') && name[1..].chars().all(|c| c.is_ascii_digit());
        let full = found.labels.len() == MAX_LABELS;
        match (name.as_str(), found.labels.last_mut()) {
            ("label", _) if full => return refused("too many labels".to_owned()),
            ("label", _) => found.labels.push(Label {
                name: value,
                ..Label::default()
            }),
            ("default", _) => found.default = Some(value),
            ("ui", _) => found.ui = Some(value),
            ("text", _) => help = true,
            ("menu", label) => match (value.to_ascii_lowercase().split_whitespace().next(), label) {
                (Some("default"), Some(label)) => found.menu_default = Some(label.name),
                (Some(word @ ("include" | "goto" | "disabled" | "indent")), label) if word != "indent" => {
                    match label {
                        Some(label) if word == "disabled" => label.unknown = Some("MENU DISABLED".to_owned()),
                        _ if word == "disabled" => {}
                        _ => return refused(format!("MENU {}", word.to_ascii_uppercase())),
                    }
                }
                _ => {}
            },
            ("linux" | "kernel", Some(label)) => label.kernel = Some(value),
            ("initrd", Some(label)) => label.initrd = Some(value),
            ("append", Some(label)) => label.append = Some(value),
            ("append", None) => found.append = Some(value),
            (name, _) if HARMLESS.contains(&name) || is_function_key => {}
            (
                "localboot" | "com32" | "boot" | "bss" | "pxe" | "fdimage" | "config" | "sysappend"
                | "ipappend",
                Some(label),
            ) => label.unknown = Some(name.to_ascii_uppercase()),
            _ => return refused(format!("the directive {name}")),
        }
    }
    Ok(found)
}

fn default<'a>(configuration: &'a Configuration<'a>) -> Result<&'a Label<'a>, String> {
    let labelled = |name: &str| configuration.labels.iter().find(|label| label.name == name);
    let first = || configuration.labels.first().ok_or_else(|| "no label".to_owned());
    let is_menu = |name: &str| {
        let program = name.split_whitespace().next().unwrap_or_default();
        MENUS.contains(&program.rsplit('/').next().unwrap_or_default())
    };
    let ui = match (configuration.ui, configuration.default) {
        (Some(ui), _) if is_menu(ui) => true,
        (Some(ui), _) => return Err(format!("the user interface {ui}")),
        (None, Some(default)) => is_menu(default),
        (None, None) => false,
    };
    let by_default = match configuration.default {
        Some(default) if !is_menu(default) => {
            let found =
                labelled(default).ok_or_else(|| format!("the default {default}, which is no label"))?;
            Some(found)
        }
        _ => None,
    };
    let by_menu = configuration.menu_default.and_then(labelled);
    match (by_menu, by_default) {
        (Some(menu), _) if ui => Ok(menu),
        // SYSLINUX without a menu takes the one, U-Boot the other.
        (Some(menu), Some(default)) if menu.name != default.name => Err(format!(
            "DEFAULT {} and MENU DEFAULT at {}",
            default.name, menu.name
        )),
        (_, Some(default)) => Ok(default),
        (Some(menu), None) => Ok(menu),
        (None, None) => first(),
    }
}

fn entry(
    label: &Label<'_>,
    configuration: &Configuration<'_>,
    part: usize,
    directory: &str,
) -> Result<BootEntry, String> {
    if let Some(unknown) = &label.unknown {
        return Err(unknown.clone());
    }
    let kernel = label.kernel.ok_or("no kernel")?;
    let lower = kernel.to_ascii_lowercase();
    if OTHER_KINDS.iter().any(|extension| lower.ends_with(extension)) {
        return Err(format!("{kernel}, which is no Linux kernel by its name"));
    }
    // "APPEND -" is how a label refuses the common one.
    let cmdline = label
        .append
        .or(configuration.append)
        .filter(|append| *append != "-")
        .unwrap_or_default();
    let mut options = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("initrd="));
    let initrds = match (label.initrd, options.next(), options.next()) {
        (Some(_), Some(_), _) | (_, _, Some(_)) => return Err("several initrds".to_owned()),
        (Some(initrd), None, _) | (None, Some(initrd), _) => initrd,
        (None, None, _) => "",
    };
    let paths = initrds.split(',').map(str::trim).filter(|path| !path.is_empty());
    Ok(BootEntry {
        kernel: absolute(kernel, part, directory)?,
        initrds: paths
            .map(|path| absolute(path, part, directory))
            .collect::<Result<_, _>>()?,
        cmdline: cmdline.to_owned(),
    })
}

fn absolute(path: &str, part: usize, directory: &str) -> Result<Place, String> {
    if path.contains("::") || path.starts_with('(') {
        return Err(format!("the path {path}"));
    }
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    };
    Ok(Place { part, path })
}
