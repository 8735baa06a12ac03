//! Values that are known or not, variables, and the expansion of words into arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::syntax::{Piece, Word};

/// A string that a boot loader would have, or why it cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Known(Rc<str>),
    Unknown(Rc<str>),
}

impl Value {
    pub(super) fn known(text: impl AsRef<str>) -> Value {
        Value::Known(Rc::from(text.as_ref()))
    }

    pub(super) fn unknown(why: impl AsRef<str>) -> Value {
        Value::Unknown(Rc::from(why.as_ref()))
    }

    /// The text, or why it is not known.
    pub(super) fn text(&self) -> Result<&str, &Rc<str>> {
        match self {
            Value::Known(text) => Ok(text),
            Value::Unknown(why) => Err(why),
        }
    }

    fn append(&mut self, other: &Value) {
        match (&*self, other) {
            (Value::Known(a), Value::Known(b)) => *self = Value::known(format!("{a}{b}")),
            (Value::Known(_), Value::Unknown(_)) => *self = other.clone(),
            (Value::Unknown(_), _) => {}
        }
    }
}

/// A command's arguments, its name the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) values: Vec<Value>,
    /// Why there may be more or fewer than these.
    pub(super) uncertain: Option<Rc<str>>,
}

impl Args {
    /// All arguments' texts.
    pub(super) fn texts(&self) -> Result<Vec<&str>, Rc<str>> {
        if let Some(why) = &self.uncertain {
            return Err(Rc::clone(why));
        }
        let texts = self.values.iter().map(|value| value.text().map_err(Rc::clone));
        texts.collect()
    }
}

/// Bytes that expansions may produce together: variables can double at each assignment.
const EXPANSION_BUDGET: usize = 1 << 20;

/// GRUB's environment.
#[derive(Debug, Clone)]
pub(super) struct Variables {
    values: BTreeMap<Rc<str>, Value>,
    exported: BTreeSet<Rc<str>>,
}

/// Variables that GRUB sets itself, by the machine that it runs on: their values here are not known.
fn is_set_by_grub(name: &str) -> bool {
    matches!(
        name,
        "cmdpath" | "shim_lock" | "lockdown" | "check_signatures" | "grub_file_filters" | "fw_path" | "lang"
    ) || ["net_", "pxe_", "tpm", "secureboot", "feature_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Those that every GRUB since 2.02 sets to `y`.
const FEATURES: &[&str] = &[
    "feature_chainloader_bpb",
    "feature_ntldr",
    "feature_platform_search_hint",
    "feature_default_font_path",
    "feature_all_video_module",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_200_final",
    "feature_nativedisk_cmd",
    "feature_timeout_style",
];

impl Variables {
    /// As GRUB starts on a platform (`pc` or `efi`).
    pub(super) fn new(platform: &str) -> Variables {
        let mut variables = Variables {
            values: BTreeMap::new(),
            exported: BTreeSet::new(),
        };
        for feature in FEATURES {
            variables.set(feature, Value::known("y"));
            variables.export(feature);
        }
        let cpu = if platform == "efi" { "x86_64" } else { "i386" };
        variables.set("grub_cpu", Value::known(cpu));
        variables.set("grub_platform", Value::known(platform));
        for name in ["grub_cpu", "grub_platform", "root", "prefix"] {
            variables.export(name);
        }
        variables
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.values.insert(Rc::from(name), value);
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.values.remove(name);
        self.exported.remove(name);
    }

    pub(super) fn export(&mut self, name: &str) {
        self.exported.insert(Rc::from(name));
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Unset variables are empty.
    pub(super) fn get(&self, name: &str) -> Value {
        match self.values.get(name) {
            Some(value) => value.clone(),
            None if is_set_by_grub(name) => Value::unknown(format!("the variable {name}")),
            None => Value::known(""),
        }
    }

    /// Only what is exported is seen in a new context.
    pub(super) fn enter_context(&mut self) {
        let exported = &self.exported;
        self.values.retain(|name, _| exported.contains(name));
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// What is the same on both sides; all else is unknown.
    pub(super) fn join(&mut self, other: &Variables, why: &Rc<str>) {
        for (name, value) in &mut self.values {
            if other.values.get(name) != Some(value) {
                *value = Value::Unknown(Rc::clone(why));
            }
        }
        for name in other.values.keys() {
            let unknown = || Value::Unknown(Rc::clone(why));
            self.values.entry(Rc::clone(name)).or_insert_with(unknown);
        }
        // A variable that is exported on one side only is unknown in a new context.
        for name in self
            .exported
            .symmetric_difference(&other.exported)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.values
                .insert(Rc::clone(&name), Value::Unknown(Rc::clone(why)));
            self.exported.insert(name);
        }
    }
}

/// Expands words as GRUB does.
pub(super) struct Expander<'a> {
    pub(super) variables: &'a Variables,
    pub(super) parameters: &'a [Value],
    pub(super) status: Option<bool>,
    /// What is left of [`Expander::budget`].
    pub(super) budget: &'a mut usize,
}

#[derive(Default)]
struct Collector {
    args: Args,
    open: Option<Value>,
}

impl Collector {
    fn append(&mut self, value: &Value) {
        match &mut self.open {
            Some(open) => open.append(value),
            None => self.open = Some(value.clone()),
        }
    }

    fn end(&mut self) {
        self.args.values.extend(self.open.take());
    }

    /// A value outside of quotes: white space separates arguments, and is lost at both ends.
    fn split(&mut self, value: &Value) {
        match value {
            Value::Unknown(why) => {
                self.append(value);
                self.args.uncertain.get_or_insert_with(|| Rc::clone(why));
            }
            Value::Known(text) => {
                for (i, part) in text.split_ascii_whitespace().enumerate() {
                    if i > 0 {
                        self.end();
                    }
                    self.append(&Value::known(part));
                }
            }
        }
    }
}

impl Expander<'_> {
    pub(super) fn budget() -> usize {
        EXPANSION_BUDGET
    }

    pub(super) fn expand(&mut self, words: &[Word]) -> Args {
        let mut collector = Collector::default();
        for word in words {
            for piece in word {
                self.piece(piece, &mut collector);
            }
            collector.end();
        }
        collector.args
    }

    fn piece(&mut self, piece: &Piece, collector: &mut Collector) {
        match piece {
            Piece::Text(text) | Piece::Quoted(text) => {
                let value = self.charged(Value::known(text));
                collector.append(&value);
            }
            Piece::Translated => collector.append(&Value::unknown("a translated text")),
            Piece::Variable(name) => {
                for (i, value) in self.values(name).into_iter().enumerate() {
                    if i > 0 {
                        collector.end();
                    }
                    let value = self.charged(value);
                    collector.split(&value);
                }
            }
            Piece::QuotedVariable(name) => {
                let together = name == "*";
                for (i, value) in self.values(name).into_iter().enumerate() {
                    if i > 0 && together {
                        collector.append(&Value::known(" "));
                    } else if i > 0 {
                        collector.end();
                    }
                    let value = self.charged(value);
                    collector.append(&value);
                }
            }
        }
    }

    fn charged(&mut self, value: Value) -> Value {
        let len = value.text().map_or(0, str::len);
        match self.budget.checked_sub(len) {
            Some(left) => {
                *self.budget = left;
                value
            }
            None => Value::unknown("variables that expand to more than 1 MiB"),
        }
    }

    fn values(&self, name: &str) -> Vec<Value> {
        match name {
            "#" => vec![Value::known(self.parameters.len().to_string())],
            "*" | "@" => self.parameters.to_vec(),
            "?" => vec![match self.status {
                Some(true) => Value::known("0"),
                Some(false) => Value::known("1"),
                None => Value::unknown("the variable ?"),
            }],
            _ if name.starts_with(|c: char| c.is_ascii_digit()) => {
                let index = name
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| number.checked_sub(1));
                vec![
                    index
                        .and_then(|index| self.parameters.get(index))
                        .cloned()
                        .unwrap_or(Value::known("")),
                ]
            }
            _ => vec![self.variables.get(name)],
        }
    }
}
