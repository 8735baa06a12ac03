//! The command `blscfg` of Red Hat's GRUB: a menu entry for each file of `/loader/entries`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::menu::Item;
use super::run::{Machine, Run, because};
use super::syntax::parse;
use super::values::{Args, Value};
use crate::entry::bls::{MAX_ENTRIES, MAX_ENTRY};
use crate::entry::version;

const DIRECTORY: &str = "/loader/entries";
const FALLBACK: &str = "/boot/loader/entries";

struct Entry {
    id: String,
    keys: Vec<(String, String)>,
}

impl Entry {
    fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys
            .iter()
            .filter(move |(found, _)| found == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Keys and values, up to the first line that has no value: there GRUB stops to read.
fn keys(text: &str) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once([' ', '\t']) else {
            break;
        };
        let value = value.trim_start_matches([' ', '\t']);
        if value.is_empty() {
            break;
        }
        keys.push((key.to_owned(), value.to_owned()));
    }
    keys
}

/// Red Hat's order of file names: name, version and release as RPM compares them.
fn by_package(a: &str, b: &str) -> Ordering {
    fn split(id: &str) -> (&str, &str, &str) {
        let mut parts = id.rsplitn(3, '-');
        let (last, middle, first) = (parts.next(), parts.next(), parts.next());
        match (first, middle, last) {
            (Some(name), Some(version), Some(release)) => (name, version, release),
            (None, Some(name), Some(version)) => (name, version, ""),
            (_, _, name) => (name.unwrap_or_default(), "", ""),
        }
    }
    let (a, b) = (split(a), split(b));
    let parts = [(a.0, b.0), (a.1, b.1), (a.2, b.2)];
    let orders = parts.into_iter().map(|(a, b)| version::compare_rpm(a, b));
    orders.fold(Ordering::Equal, Ordering::then)
}

impl Machine<'_> {
    pub(super) fn blscfg(&mut self, line: usize, args: &Args) -> Run {
        self.red_hat = true;
        if args.uncertain.is_some() || !args.values.is_empty() {
            return because(self.place(line), "blscfg with arguments");
        }
        let mut entries = self.entries(line)?;
        entries.sort_by(|a, b| by_package(&b.id, &a.id));
        // GRUB 2.14 compares otherwise. It decides only where an entry is chosen by its number.
        let mut other: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        other.sort_by(|a, b| version::compare(b, a));
        if other
            .iter()
            .zip(&entries)
            .any(|(other, entry)| **other != entry.id)
        {
            let first = entries.first().map_or("", |entry| &entry.id).to_owned();
            return because(
                self.place(line),
                format!(
                    "an order of entries that depends on GRUB's version ({first} or {})",
                    other[0]
                ),
            );
        }
        for entry in entries {
            self.add(line, &entry)?;
        }
        self.state.status = Some(true);
        Ok(())
    }

    fn entries(&mut self, line: usize) -> Run<Vec<Entry>> {
        let mut directory = self.text_of("blsdir")?.to_string();
        if directory.is_empty() {
            directory = DIRECTORY.to_owned();
        }
        if directory.starts_with('(') {
            return because(self.place(line), "blsdir on a device");
        }
        let mut names = self.list(line, &directory)?;
        if names.is_none() {
            directory = FALLBACK.to_owned();
            names = self.list(line, &directory)?;
        }
        let mut entries = Vec::new();
        for name in names.unwrap_or_default() {
            let Some(id) = name
                .strip_suffix(".conf")
                .filter(|id| !id.is_empty() && !id.starts_with('.'))
            else {
                continue;
            };
            if entries.len() == MAX_ENTRIES {
                return because(&*directory, format!("more than {MAX_ENTRIES} entries"));
            }
            self.charge(1)?;
            if let Some((_, content)) = self.read(&format!("{directory}/{name}"), MAX_ENTRY)? {
                let keys = keys(&String::from_utf8_lossy(&content));
                entries.push(Entry {
                    id: id.to_owned(),
                    keys,
                });
            }
        }
        entries.retain(|entry| entry.get("linux").is_some());
        Ok(entries)
    }

    /// The names in a directory of the root device; none if it is not there.
    fn list(&self, line: usize, directory: &str) -> Run<Option<Vec<String>>> {
        let place = match self.locate(directory) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(None),
            Err(why) => return because(self.place(line), why.to_string()),
        };
        let Some(volume) = self.volumes.volume(place.part) else {
            return Ok(None);
        };
        match volume.kind(&place.path)? {
            Some(crate::fs::Kind::Directory) => Ok(Some(volume.list(&place.path)?)),
            _ => Ok(None),
        }
    }

    fn add(&mut self, line: usize, entry: &Entry) -> Run {
        let title = entry.get("title").or(entry.get("linux")).unwrap_or_default();
        let title = Value::known(title);
        let file: Rc<str> = Rc::from(format!("the entry {}", entry.id));
        let body = match self.body(line, entry)? {
            Ok(text) => {
                parse(&text).map_err(|error| Rc::from(format!("line {}: {}", error.line, error.what)))
            }
            Err(why) => Err(why),
        };
        let mut parameters = vec![title.clone()];
        parameters.extend(entry.all("grub_arg").map(Value::known));
        self.state.menu.push(Item {
            title,
            id: Value::known(&entry.id),
            parameters: Rc::new(parameters),
            body,
            file,
            submenu: false,
            restricted: entry.get("grub_users").is_some(),
        });
        Ok(())
    }

    /// The script that GRUB makes of an entry.
    fn body(&mut self, line: usize, entry: &Entry) -> Run<Result<String, Rc<str>>> {
        let linux = entry.get("linux").unwrap_or_default();
        if entry.get("devicetree").is_some() || !self.text_of("devicetree")?.is_empty() {
            return Ok(Err(Rc::from("a device tree")));
        }
        let default_options = self.state.variables.get("default_kernelopts");
        let options = match (entry.get("options"), &default_options) {
            (Some(options), _) => options,
            (None, Value::Known(options)) => options,
            (None, Value::Unknown(why)) => return Ok(Err(Rc::clone(why))),
        };
        let options = match self.expanded(options) {
            Ok(options) => options,
            Err(why) => return Ok(Err(why)),
        };
        if entry.all("options").count() > 1 {
            // Red Hat's GRUB takes the first; the specification wants them all.
            return Ok(Err(Rc::from("several lines of options")));
        }
        let mut initrds: Vec<String> = Vec::new();
        let early = self.text_of("early_initrd")?;
        if !early.is_empty() {
            let first = entry.get("initrd").unwrap_or(linux);
            let directory = first.rfind('/').map_or("", |at| &first[..=at]);
            initrds.extend(early.split(' ').map(|name| format!("{directory}{name}")));
        }
        initrds.extend(entry.all("initrd").map(str::to_owned));
        let mut text = String::new();
        if *self.text_of("save_default")? == *"true" {
            text.push_str("savedefault\n");
        }
        text.push_str("load_video\nset gfxpayload=keep\ninsmod gzio\n");
        text.push_str(&format!("linux {linux} {options}\n"));
        if !initrds.is_empty() {
            text.push_str(&format!("initrd {}\n", initrds.join(" ")));
        }
        self.charge(1 + text.len() / 256)?;
        let _ = line;
        Ok(Ok(text))
    }

    /// Options with their variables. A value is followed by a blank.
    fn expanded(&self, options: &str) -> Result<String, Rc<str>> {
        let mut out = String::new();
        let mut rest = options;
        while let Some(at) = rest.find('$') {
            let (before, behind) = (&rest[..at], &rest[at + 1..]);
            if before.ends_with('\\') {
                out.push_str(before);
                out.push('$');
                rest = behind;
                continue;
            }
            lost(before)?;
            out.push_str(before);
            let end = behind
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(behind.len());
            if end == 0 {
                return Err(Rc::from("options with a dollar sign without a name"));
            }
            // Without a value, not even the blank remains.
            let value = self.state.variables.get(&behind[..end]);
            let value = value.text().map_err(Rc::clone)?;
            if self.state.variables.is_set(&behind[..end]) {
                out.push_str(value);
                out.push(' ');
            }
            rest = behind[end..].strip_prefix(' ').unwrap_or(&behind[end..]);
        }
        lost(rest)?;
        out.push_str(rest);
        Ok(out)
    }
}

/// Red Hat's GRUB loses text of one letter between variables and at the end.
fn lost(text: &str) -> Result<(), Rc<str>> {
    if text.len() == 1 && text != " " {
        return Err(Rc::from("options of one letter"));
    }
    Ok(())
}
