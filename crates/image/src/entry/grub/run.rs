//! Running statements.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::environment::Saved;
use super::menu::Menu;
use super::syntax::{Block, Statement, SyntaxError, parse};
use super::values::{Args, Expander, Value, Variables};
use super::{Script, Start};
use crate::entry::{BootEntry, Undecided};
use crate::fs::{FsError, Kind};
use crate::volumes::{Content, Place, Volumes};

/// Statements that are run, in all boots together. Copies of the state count for more.
pub(super) const MAX_STEPS: usize = 100_000;
/// Bytes of a configuration file.
const MAX_FILE: u64 = 1 << 20;
/// Functions, sourced files and menus within each other.
const MAX_DEPTH: usize = 24;

/// Why running ends before the last statement.
pub(super) enum Stop {
    Boot(Rc<BootEntry>),
    Undecided(Undecided),
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Stop {
        Stop::Undecided(error.into())
    }
}

pub(super) type Run<T = ()> = Result<T, Stop>;

pub(super) fn because<T>(place: impl Into<String>, what: impl Into<String>) -> Run<T> {
    Err(Stop::Undecided(Undecided::because(place, what)))
}

/// What `linux` and `initrd` have loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loaded {
    Nothing,
    Kernel(Rc<BootEntry>),
    Unknown(Rc<str>),
}

/// How running goes on behind a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Return,
    Break(usize),
    Continue(usize),
}

/// All that statements change.
#[derive(Clone)]
pub(super) struct State {
    pub(super) variables: Variables,
    pub(super) menu: Menu,
    pub(super) functions: BTreeMap<Rc<str>, Block>,
    pub(super) parameters: Rc<Vec<Value>>,
    /// Of the last command, if it is known.
    pub(super) status: Option<bool>,
    pub(super) loaded: Loaded,
    pub(super) saved: Saved,
    pub(super) flow: Flow,
}

pub(super) struct Machine<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) state: State,
    steps: usize,
    pub(super) expansion: usize,
    depth: usize,
    /// The file that is run, for messages.
    pub(super) file: Rc<str>,
    /// Whether the menu has entries of `blscfg`, which only Red Hat's GRUB knows.
    pub(super) red_hat: bool,
}

impl<'a> Machine<'a> {
    pub(super) fn new(volumes: &'a Volumes, start: &Start, saved: Saved, steps: usize) -> Machine<'a> {
        let mut variables = Variables::new(start.platform);
        let device = |part: usize| volumes.parts.get(part).map_or("", |part| &part.region.device);
        variables.set("root", Value::known(device(start.root)));
        let prefix = format!("({}){}", device(start.prefix.part), start.prefix.path);
        variables.set("prefix", Value::known(prefix));
        let state = State {
            variables,
            menu: Menu::default(),
            functions: BTreeMap::new(),
            parameters: Rc::default(),
            status: Some(true),
            loaded: Loaded::Nothing,
            saved,
            flow: Flow::Next,
        };
        Machine {
            volumes,
            state,
            steps,
            expansion: Expander::budget(),
            depth: 0,
            file: Rc::from("grub.cfg"),
            red_hat: false,
        }
    }

    pub(super) fn steps_left(&self) -> usize {
        self.steps
    }

    pub(super) fn saved(&self) -> Saved {
        self.state.saved.clone()
    }

    /// Runs from the beginning to the kernel.
    pub(super) fn boot(&mut self, start: &Start) -> Stop {
        let run = match &start.script {
            Script::Configuration => self.normal(None),
            Script::Embedded { image, text } => {
                self.file = Rc::from(image.as_str());
                self.script(text).and_then(|()| self.normal(None))
            }
            Script::EntriesAlone => {
                self.file = Rc::from("the entries of /loader/entries");
                self.script("load_env\nset default=\"${saved_entry}\"\nblscfg\n")
                    .and_then(|()| self.choose())
            }
        };
        match run {
            Err(stop) => stop,
            Ok(()) => Stop::Undecided(Undecided::because(&*self.file, "a menu without entries")),
        }
    }

    /// Reads a configuration file and boots from its menu, as GRUB's normal mode does.
    pub(super) fn normal(&mut self, path: Option<&str>) -> Run {
        let path = match path {
            Some(path) => path.to_owned(),
            None => format!("{}/grub.cfg", self.text_of("prefix")?),
        };
        if !self.source(&path)? {
            return because(path, "a configuration file that is not there");
        }
        if let Ok(Some(place)) = self.locate(&path) {
            self.file = Rc::from(place.path.as_str());
        }
        self.choose()
    }

    /// Runs a file in the present context. False if there is none.
    pub(super) fn source(&mut self, path: &str) -> Run<bool> {
        let Some((place, content)) = self.read(path, MAX_FILE)? else {
            return Ok(false);
        };
        if content.contains(&0) {
            return because(path, "a configuration with a NUL");
        }
        let device = &self.volumes.parts[place.part].region.device;
        let absolute = format!("({device}){}", place.path);
        let directory = absolute
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory)
            .to_owned();
        let before = ["config_file", "config_directory"].map(|name| {
            (
                name,
                self.state.variables.is_set(name),
                self.state.variables.get(name),
            )
        });
        self.state.variables.set("config_file", Value::known(&absolute));
        self.state
            .variables
            .set("config_directory", Value::known(directory));
        self.state.variables.export("config_file");
        self.state.variables.export("config_directory");
        let file = std::mem::replace(&mut self.file, Rc::from(place.path.as_str()));
        self.script(&String::from_utf8_lossy(&content))?;
        self.file = file;
        for (name, was_set, value) in before {
            if was_set {
                self.state.variables.set(name, value);
            } else {
                self.state.variables.unset(name);
            }
        }
        Ok(true)
    }

    pub(super) fn script(&mut self, text: &str) -> Run {
        let block = parse(text).map_err(|error| self.syntax(error))?;
        self.deeper(|machine| machine.block(&block))?;
        // What a file's own commands return to or break out of ends with it.
        self.state.flow = Flow::Next;
        Ok(())
    }

    fn syntax(&self, error: SyntaxError) -> Stop {
        let place = format!("{}: line {}", self.file, error.line);
        Stop::Undecided(Undecided::because(place, error.what))
    }

    pub(super) fn deeper(&mut self, run: impl FnOnce(&mut Self) -> Run) -> Run {
        if self.depth == MAX_DEPTH {
            return because(
                &*self.file,
                format!("more than {MAX_DEPTH} calls within each other"),
            );
        }
        self.depth += 1;
        let done = run(self);
        self.depth -= 1;
        done
    }

    pub(super) fn charge(&mut self, steps: usize) -> Run {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                because(&*self.file, format!("more than {MAX_STEPS} commands"))
            }
        }
    }

    pub(super) fn block(&mut self, block: &Block) -> Run {
        for statement in block.iter() {
            self.statement(statement)?;
            if self.state.flow != Flow::Next {
                break;
            }
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Run {
        self.charge(1)?;
        match statement {
            Statement::Command { line, words, block } => {
                let args = self.expand(words);
                self.command(*line, &args, block.as_ref())
            }
            Statement::Function { name, body } => {
                self.state
                    .functions
                    .insert(Rc::from(name.as_str()), Rc::clone(body));
                Ok(())
            }
            Statement::If {
                line,
                condition,
                then,
                otherwise,
            } => {
                self.block(condition)?;
                if self.state.flow != Flow::Next {
                    return Ok(());
                }
                match self.state.status {
                    Some(true) => self.block(then),
                    Some(false) => self.otherwise(otherwise.as_ref()),
                    None => self.both(*line, then, otherwise.as_ref()),
                }
            }
            Statement::For {
                line,
                name,
                words,
                body,
            } => {
                let args = self.expand(words);
                if let Some(why) = args.uncertain {
                    return because(self.place(*line), format!("a loop over {why}"));
                }
                for value in args.values {
                    self.charge(1)?;
                    self.state.variables.set(name, value);
                    self.block(body)?;
                    if self.leaves_loop() {
                        break;
                    }
                }
                Ok(())
            }
            Statement::While {
                line,
                until,
                condition,
                body,
            } => loop {
                self.charge(1)?;
                self.block(condition)?;
                match self.state.status {
                    None => return because(self.place(*line), "a loop until something that is not known"),
                    Some(status) if status == *until => return Ok(()),
                    Some(_) => {}
                }
                self.block(body)?;
                if self.leaves_loop() {
                    return Ok(());
                }
            },
        }
    }

    /// Whether `break`, `continue` or `return` leaves the innermost loop.
    fn leaves_loop(&mut self) -> bool {
        let (flow, leaves) = match self.state.flow {
            Flow::Next => (Flow::Next, false),
            Flow::Return => (Flow::Return, true),
            Flow::Continue(1) => (Flow::Next, false),
            Flow::Break(1) => (Flow::Next, true),
            Flow::Continue(loops) => (Flow::Continue(loops - 1), true),
            Flow::Break(loops) => (Flow::Break(loops - 1), true),
        };
        self.state.flow = flow;
        leaves
    }

    fn otherwise(&mut self, block: Option<&Block>) -> Run {
        match block {
            Some(block) => self.block(block),
            None => {
                self.state.status = Some(true);
                Ok(())
            }
        }
    }

    /// Runs both ways of a test that is not known.
    fn both(&mut self, line: usize, then: &Block, otherwise: Option<&Block>) -> Run {
        let why: Rc<str> = Rc::from(format!("the test in line {line} of {}", self.file));
        self.charge(1 + self.state.variables.len() / 8 + self.state.menu.len() / 8)?;
        let before = self.state.clone();
        let one = self.block(then);
        let after = std::mem::replace(&mut self.state, before);
        let other = self.otherwise(otherwise);
        match (one, other) {
            (Ok(()), Ok(())) => self.join(after, &why),
            (Err(Stop::Boot(one)), Err(Stop::Boot(other))) if one == other => Err(Stop::Boot(one)),
            (Err(Stop::Undecided(undecided)), _) | (_, Err(Stop::Undecided(undecided))) => {
                Err(Stop::Undecided(undecided))
            }
            _ => because(&*self.file, format!("{why}, which decides what is booted")),
        }
    }

    fn join(&mut self, other: State, why: &Rc<str>) -> Run {
        let state = &mut self.state;
        let same_functions = state.functions.len() == other.functions.len()
            && state.functions.iter().all(|(name, body)| {
                other
                    .functions
                    .get(name)
                    .is_some_and(|found| Rc::ptr_eq(body, found))
            });
        if !same_functions || state.flow != other.flow || state.parameters != other.parameters {
            return because(&*self.file, format!("{why}, which decides how the file goes on"));
        }
        state.variables.join(&other.variables, why);
        state.menu.join(&other.menu, why);
        if state.status != other.status {
            state.status = None;
        }
        if state.loaded != other.loaded {
            state.loaded = Loaded::Unknown(Rc::clone(why));
        }
        let names: Vec<String> = state.saved.keys().chain(other.saved.keys()).cloned().collect();
        for name in names {
            if state.saved.get(&name) != other.saved.get(&name) {
                state.saved.insert(name, Some(Value::Unknown(Rc::clone(why))));
            }
        }
        Ok(())
    }

    pub(super) fn expand(&mut self, words: &[super::syntax::Word]) -> Args {
        Expander {
            variables: &self.state.variables,
            parameters: &self.state.parameters,
            status: self.state.status,
            budget: &mut self.expansion,
        }
        .expand(words)
    }

    /// "/boot/grub/grub.cfg: line 12".
    pub(super) fn place(&self, line: usize) -> String {
        format!("{}: line {line}", self.file)
    }

    /// A variable's text.
    pub(super) fn text_of(&self, name: &str) -> Run<Rc<str>> {
        match self.state.variables.get(name) {
            Value::Known(text) => Ok(text),
            Value::Unknown(why) => because(&*self.file, why.to_string()),
        }
    }

    /// Where a path leads that may begin with a device.
    ///
    /// The inner error names why that is not known; none is a device or path that GRUB refuses.
    pub(super) fn locate(&self, path: &str) -> Result<Option<Place>, Rc<str>> {
        let root;
        let (device, path) = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((device, path)) => (device, path),
            None => {
                root = match self.state.variables.get("root") {
                    Value::Known(root) => root,
                    Value::Unknown(why) => return Err(why),
                };
                (&*root, path)
            }
        };
        let Some(part) = self.volumes.device(device) else {
            // Other disks, loop devices, LVM: what they are is not known here.
            return Err(Rc::from(format!("the device ({device})")));
        };
        if !path.starts_with('/') && !path.is_empty() {
            return Ok(None);
        }
        match &self.volumes.parts[part].content {
            Content::Open(_) => Ok(Some(Place {
                part,
                path: path.to_owned(),
            })),
            Content::Nothing => Ok(None),
            Content::Unread(what) => Err(Rc::from(format!("the device ({device}), which is {what}"))),
        }
    }

    /// What a path names.
    pub(super) fn kind(&self, path: &str) -> Result<Result<Option<Kind>, Rc<str>>, FsError> {
        let place = match self.locate(path) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        };
        match self.volumes.volume(place.part) {
            Some(volume) => volume.kind(&place.path).map(Ok),
            None => Ok(Ok(None)),
        }
    }

    /// A file's content; none if there is no such file.
    pub(super) fn read(&self, path: &str, limit: u64) -> Run<Option<(Place, Vec<u8>)>> {
        let place = match self.locate(path) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(None),
            Err(why) => return because(&*self.file, why.to_string()),
        };
        let Some(volume) = self.volumes.volume(place.part) else {
            return Ok(None);
        };
        Ok(volume.read(&place.path, limit)?.map(|content| (place, content)))
    }
}
