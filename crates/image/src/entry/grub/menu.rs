//! The menu, and which of its entries is the default (GRUB manual, "default").

use std::rc::Rc;

use super::run::{Flow, Loaded, Machine, Run, Stop, because};
use super::syntax::Block;
use super::values::Value;

/// Entries of one menu.
const MAX_ITEMS: usize = 20_000;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) title: Value,
    pub(super) id: Value,
    pub(super) parameters: Rc<Vec<Value>>,
    /// Or why it is not known.
    pub(super) body: Result<Block, Rc<str>>,
    pub(super) file: Rc<str>,
    pub(super) submenu: bool,
    /// Wants a password where there are superusers.
    pub(super) restricted: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Menu {
    items: Vec<Rc<Item>>,
    /// Why there may be other entries behind these.
    open_end: Option<Rc<str>>,
}

impl Menu {
    pub(super) fn push(&mut self, item: Item) {
        // Behind what is not known, an entry has no number.
        if self.open_end.is_none() && self.items.len() < MAX_ITEMS {
            self.items.push(Rc::new(item));
        } else {
            self.open_end
                .get_or_insert_with(|| Rc::from(format!("a menu of more than {MAX_ITEMS} entries")));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// What both begin with.
    pub(super) fn join(&mut self, other: &Menu, why: &Rc<str>) {
        let same = self
            .items
            .iter()
            .zip(&other.items)
            .take_while(|(a, b)| a == b)
            .count();
        if same < self.items.len().max(other.items.len()) {
            self.items.truncate(same);
            self.open_end = Some(Rc::clone(why));
        } else if self.open_end.is_none() {
            self.open_end.clone_from(&other.open_end);
        }
    }
}

/// The first part of a default, in which ">>" stands for ">"; and what is behind the ">" that ends it.
fn first_part(default: &str) -> (String, Option<&str>) {
    let mut part = String::new();
    let mut rest = default;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix(">>") {
            part.push('>');
            rest = behind;
            continue;
        }
        if c == '>' {
            return (part, Some(&rest[1..]).filter(|rest| !rest.is_empty()));
        }
        part.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (part, None)
}

/// What a default's first part says by GRUB's rules: a number, a name, or text that they take for either.
enum Wanted {
    First,
    Number(usize),
    Name,
    /// It begins like a number and is none.
    Either,
}

fn wanted(part: &str) -> Wanted {
    if part.is_empty() {
        return Wanted::First;
    }
    let digits = part.bytes().take_while(u8::is_ascii_digit).count();
    match digits {
        0 => Wanted::Name,
        // A leading zero is for octal and hexadecimal numbers.
        _ if digits == part.len() && (part == "0" || !part.starts_with('0')) => {
            part.parse().map_or(Wanted::Either, Wanted::Number)
        }
        _ => Wanted::Either,
    }
}

impl Machine<'_> {
    /// Runs the default entry of the menu.
    pub(super) fn choose(&mut self) -> Run {
        if self.state.menu.items.is_empty() && self.state.menu.open_end.is_none() {
            return because(&*self.file, "a menu without entries");
        }
        let default = self.text_of("default")?;
        let (part, rest) = first_part(&default);
        let index = self.index(&part, rest.is_some())?;
        let Some(item) = self.state.menu.items.get(index).cloned() else {
            return self.open_end(&default);
        };
        self.charge(1)?;
        self.deeper(|machine| machine.execute(&item, rest))
    }

    fn open_end(&self, default: &str) -> Run {
        match &self.state.menu.open_end {
            Some(why) => because(
                &*self.file,
                format!("the default entry {default:?} depends on {why}"),
            ),
            None => because(&*self.file, "a menu without entries"),
        }
    }

    /// Which item is meant. Behind the items that are known there may be others.
    fn index(&self, part: &str, has_rest: bool) -> Run<usize> {
        let items = &self.state.menu.items;
        let named = |part: &str| -> Run<Option<usize>> {
            for (i, item) in items.iter().enumerate() {
                for name in [&item.id, &item.title] {
                    match name {
                        Value::Known(name) if **name == *part => return Ok(Some(i)),
                        Value::Unknown(why) => {
                            return because(&*self.file, format!("the name of an entry is {why}"));
                        }
                        Value::Known(_) => {}
                    }
                }
            }
            Ok(None)
        };
        let fall_back = |found: Option<usize>| match (found, &self.state.menu.open_end) {
            (Some(index), _) => Ok(index),
            (None, Some(why)) => because(
                &*self.file,
                format!("the default entry {part:?} depends on {why}"),
            ),
            // What is not there stands for the first.
            (None, None) => Ok(0),
        };
        match wanted(part) {
            Wanted::First => Ok(0),
            Wanted::Name => fall_back(named(part)?),
            Wanted::Number(index) => {
                if let Some(other) = named(part)?
                    && other != index
                {
                    return because(
                        &*self.file,
                        format!("the default {part}, a number and a name of another entry"),
                    );
                }
                // Red Hat's GRUB takes no number before a ">".
                if has_rest && self.red_hat {
                    return because(&*self.file, format!("the default {part}>... beside blscfg"));
                }
                fall_back((index < items.len()).then_some(index))
            }
            Wanted::Either if self.red_hat => fall_back(named(part)?),
            Wanted::Either => {
                // GRUB reads the digits as a number; Red Hat's looks for the name first.
                because(
                    &*self.file,
                    format!("the default {part:?}, which begins with digits"),
                )
            }
        }
    }

    fn execute(&mut self, item: &Item, rest: Option<&str>) -> Run {
        let body = match &item.body {
            Ok(body) => Rc::clone(body),
            Err(why) => return because(&*item.file, why.to_string()),
        };
        if item.restricted && self.text_of("superusers")?.chars().any(|c| !c.is_whitespace()) {
            return because(&*item.file, "a menu entry that wants a password");
        }
        if self.red_hat && item.submenu && rest.is_none() {
            return because(&*item.file, "a submenu as the default beside blscfg");
        }
        if item.submenu {
            self.state.variables.enter_context();
            self.state.menu = super::menu::Menu::default();
            self.state.variables.set("timeout", Value::known("0"));
        }
        let chosen = match (self.state.variables.get("chosen"), &item.id) {
            (Value::Known(outer), Value::Known(id)) => {
                let id = id.replace('>', ">>");
                let outer = if outer.is_empty() {
                    String::new()
                } else {
                    format!("{outer}>")
                };
                Value::known(outer + &id)
            }
            _ => Value::unknown("the chosen entry's name"),
        };
        self.state.variables.set("chosen", chosen);
        self.state.variables.export("chosen");
        match rest {
            Some(rest) => self.state.variables.set("default", Value::known(rest)),
            None => self.state.variables.unset("default"),
        }
        self.file = Rc::clone(&item.file);
        self.state.parameters = Rc::clone(&item.parameters);
        self.block(&body)?;
        self.state.flow = Flow::Next;
        if item.submenu {
            return self.choose();
        }
        match self.state.loaded.clone() {
            Loaded::Kernel(entry) => Err(Stop::Boot(entry)),
            Loaded::Unknown(why) => because(&*self.file, why.to_string()),
            Loaded::Nothing => {
                let title = item.title.text().unwrap_or("the default entry").to_owned();
                because(&*self.file, format!("the menu entry {title:?} without a kernel"))
            }
        }
    }
}
