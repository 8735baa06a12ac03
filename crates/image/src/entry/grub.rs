//! `grub.cfg`: the subset that distributions' generators write.
//!
//! GRUB's configuration is a shell script. It is read here as if every branch were taken: of several assignments the last counts, which
//! in generated files is the ordinary case ("else set default=0"). Functions' bodies are skipped.

use std::rc::Rc;

use super::shell::{commands, logical_lines};
use super::{BootEntry, Variables};

/// Deeper submenus are not looked into.
const MAX_DEPTH: usize = 8;

/// A menu entry, with the submenus that it lies in.
#[derive(Debug)]
struct Item {
    /// Indices, titles and ids from the outermost submenu to the entry itself.
    path: Vec<Rc<Step>>,
    boot: BootEntry,
}

#[derive(Debug)]
struct Step {
    index: usize,
    title: String,
    id: Option<String>,
}

impl Step {
    fn is(&self, wanted: &str) -> bool {
        self.title == wanted
            || self.id.as_deref() == Some(wanted)
            || wanted.parse::<usize>().is_ok_and(|index| index == self.index)
    }
}

enum Block {
    Submenu { items: usize },
    Entry,
    Other,
}

/// The default menu entry, else the first that has a kernel. `variables` is GRUB's environment block.
pub(crate) fn parse(text: &str, mut variables: Variables) -> Option<BootEntry> {
    let mut reader = Reader::default();
    for line in logical_lines(text) {
        for words in commands(&line, &mut variables) {
            reader.command(&words, &mut variables);
        }
    }
    let default = variables.get("default").unwrap_or_default();
    let wanted: Vec<&str> = default.split('>').filter(|part| !part.is_empty()).collect();
    let bootable = || reader.items.iter().filter(|item| !item.boot.kernel.is_empty());
    let matches = |item: &&Item| {
        // An entry's id or title is enough alone, wherever it is.
        let direct = matches!((&wanted[..], item.path.last()), ([one], Some(last)) if last.is(one) && one.parse::<usize>().is_err());
        direct
            || (wanted.len() <= item.path.len()
                && wanted.iter().zip(&item.path).all(|(part, step)| step.is(part)))
    };
    let chosen = bootable().find(matches).or_else(|| bootable().next());
    chosen.map(|item| item.boot.clone())
}

#[derive(Default)]
struct Reader {
    items: Vec<Item>,
    top_level: usize,
    path: Vec<Rc<Step>>,
    /// Those that are open, from the outermost on.
    blocks: Vec<Block>,
    /// Of `blocks`, entries and others.
    open_entries: usize,
    open_others: usize,
}

impl Reader {
    fn command(&mut self, words: &[String], variables: &mut Variables) {
        let Some((name, arguments)) = words.split_first() else {
            return;
        };
        let (in_entry, in_other) = (self.open_entries > 0, self.open_others > 0);
        let opens = arguments.last().is_some_and(|word| word == "{");
        match name.as_str() {
            "}" => self.close(),
            "menuentry" | "submenu" if opens && !in_entry && !in_other && self.path.len() < MAX_DEPTH => {
                self.open(arguments, name == "submenu");
            }
            _ if opens || name == "{" => {
                self.blocks.push(Block::Other);
                self.open_others += 1;
            }
            _ if in_other => {}
            "set" => {
                if let Some((name, value)) = arguments.first().and_then(|word| word.split_once('=')) {
                    variables.set(name, value);
                }
            }
            "linux" | "linux16" | "linuxefi" if in_entry => {
                let item = self.items.last_mut().filter(|item| item.boot.kernel.is_empty());
                if let (Some(item), [kernel, cmdline @ ..]) = (item, arguments) {
                    item.boot.kernel = without_device(kernel).to_owned();
                    item.boot.cmdline = cmdline
                        .iter()
                        .map(|word| quoted(word))
                        .collect::<Vec<_>>()
                        .join(" ");
                }
            }
            "initrd" | "initrd16" | "initrdefi" if in_entry => {
                if let Some(item) = self.items.last_mut().filter(|item| item.boot.initrds.is_empty()) {
                    item.boot.initrds = arguments
                        .iter()
                        .map(|word| without_device(word).to_owned())
                        .collect();
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, arguments: &[String], submenu: bool) {
        let siblings = self.blocks.iter_mut().rev().find_map(|block| match block {
            Block::Submenu { items } => Some(items),
            _ => None,
        });
        let counter = siblings.unwrap_or(&mut self.top_level);
        let index = *counter;
        *counter += 1;
        // Generated files say `$menuentry_id_option ID`; the variable is GRUB's own and stands for `--id`.
        let id = arguments
            .windows(2)
            .find(|pair| pair[0] == "--id")
            .map(|pair| pair[1].clone());
        let title = arguments.first().cloned().unwrap_or_default();
        self.path.push(Rc::new(Step { index, title, id }));
        if submenu {
            self.blocks.push(Block::Submenu { items: 0 });
        } else {
            self.items.push(Item {
                path: self.path.clone(),
                boot: BootEntry::default(),
            });
            self.blocks.push(Block::Entry);
            self.open_entries += 1;
        }
    }

    fn close(&mut self) {
        match self.blocks.pop() {
            Some(Block::Other) => self.open_others -= 1,
            Some(Block::Entry) => {
                self.open_entries -= 1;
                self.path.pop();
            }
            Some(Block::Submenu { .. }) => drop(self.path.pop()),
            None => {}
        }
    }
}

/// `(hd0,gpt2)/vmlinuz` names a device; ours is the file system that the configuration came from.
fn without_device(path: &str) -> &str {
    path.strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .map_or(path, |(_, path)| path)
}

/// A word as the kernel's own parser wants it.
fn quoted(word: &str) -> String {
    if word.contains(' ') {
        format!("\"{word}\"")
    } else {
        word.to_owned()
    }
}
