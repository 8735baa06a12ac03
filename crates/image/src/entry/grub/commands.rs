//! GRUB's commands (GRUB manual, "Command-line and menu entry commands").

use std::rc::Rc;

use super::environment;
use super::menu::Item;
use super::run::{Flow, Loaded, Machine, Run, Stop, because};
use super::syntax::Block;
use super::test;
use super::values::{Args, Value};
use crate::entry::BootEntry;
use crate::fs::Kind;
use crate::volumes::Place;

/// Bytes of an environment block; GRUB's tools make 1024.
const MAX_ENVIRONMENT: u64 = 64 << 10;

/// Commands that change nothing that decides what is booted. Whether they succeed is not known.
const HARMLESS: &[&str] = &[
    "background_color",
    "background_image",
    "cat",
    "clear",
    "cls",
    "date",
    "echo",
    "fwsetup",
    "insmod",
    "keymap",
    "keystatus",
    "list_env",
    "loadfont",
    "ls",
    "lsmod",
    "password",
    "password_pbkdf2",
    "play",
    "serial",
    "sleep",
    "terminal",
    "terminal_input",
    "terminal_output",
    "terminfo",
    "videoinfo",
    "vbeinfo",
];

/// Functions of generated configurations. Where a configuration calls one without defining it, GRUB prints an error and
/// goes on.
const FUNCTIONS: &[&str] = &["load_video", "gfxmode", "savedefault", "recordfail", "initrdfail"];

/// How an option of a command takes its argument.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// Behind an equals sign, or none.
    Optional,
    Required,
}

/// (long, short, argument).
pub(super) type Options = &'static [(&'static str, char, Takes)];

const MENU_OPTIONS: Options = &[
    ("class", 'c', Takes::Required),
    ("users", 'u', Takes::Optional),
    ("hotkey", 'k', Takes::Required),
    ("source", 's', Takes::Required),
    ("id", 'i', Takes::Required),
    ("unrestricted", 'r', Takes::Nothing),
];
const FILE_OPTIONS: Options = &[("file", 'f', Takes::Required), ("skip-sig", 's', Takes::Nothing)];

/// Options by their long names, with their arguments; and the other arguments. None for an option that is not known.
#[allow(clippy::type_complexity)]
pub(super) fn options(
    values: &[Value],
    options: Options,
) -> Option<(Vec<(&'static str, Option<Value>)>, Vec<Value>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut values = values.iter();
    while let Some(value) = values.next() {
        let text = value.text().unwrap_or_default();
        if text == "--" {
            others.extend(values.cloned());
            break;
        }
        let (option, argument) = if let Some(long) = text.strip_prefix("--") {
            let (name, argument) = long
                .split_once('=')
                .map_or((long, None), |(name, argument)| (name, Some(argument)));
            (options.iter().find(|(long, ..)| *long == name)?, argument)
        } else if let Some(short) = text.strip_prefix('-').filter(|short| !short.is_empty()) {
            let mut letters = short.chars();
            let letter = letters.next()?;
            let option = options.iter().find(|(_, short, _)| *short == letter)?;
            let rest = letters.as_str();
            // Several letters in one argument.
            if !rest.is_empty() {
                return None;
            }
            (option, None)
        } else {
            others.push(value.clone());
            continue;
        };
        let argument = argument.map(Value::known);
        let argument = match option.2 {
            Takes::Nothing => None,
            Takes::Optional => argument,
            Takes::Required => Some(match argument {
                Some(argument) => argument,
                None => values.next()?.clone(),
            }),
        };
        found.push((option.0, argument));
    }
    Some((found, others))
}

impl Machine<'_> {
    pub(super) fn command(&mut self, line: usize, args: &Args, block: Option<&Block>) -> Run {
        let Some(name) = args.values.first() else {
            // Nothing but empty variables.
            return match &args.uncertain {
                Some(why) => because(self.place(line), format!("a command that is {why}")),
                None => Ok(()),
            };
        };
        let name = match name.text() {
            Ok(name) => name.to_owned(),
            Err(why) => return because(self.place(line), format!("a command that is {why}")),
        };
        let rest = Args {
            values: args.values[1..].to_vec(),
            uncertain: args.uncertain.clone(),
        };
        if name == "!" {
            self.command(line, &rest, block)?;
            self.state.status = self.state.status.map(|status| !status);
            return Ok(());
        }
        if block.is_some() && !matches!(name.as_str(), "menuentry" | "submenu") {
            return because(self.place(line), format!("a block behind {name}"));
        }
        self.named(line, &name, &rest, block)
    }

    fn succeed(&mut self, status: Option<bool>) -> Run {
        self.state.status = status;
        Ok(())
    }

    fn named(&mut self, line: usize, name: &str, args: &Args, block: Option<&Block>) -> Run {
        // Each needs all of its arguments.
        let texts = || {
            let texts = args.texts();
            texts.map_err(|why| self.undecided(line, format!("{name} with {why}")))
        };
        match name {
            "true" => self.succeed(Some(true)),
            "false" => self.succeed(Some(false)),
            "[" | "test" => {
                let truth = test::test(args, &mut |path| self.kind(path))?;
                self.succeed(truth.ok())
            }
            "set" => self.set(line, args),
            "unset" => {
                for name in texts()? {
                    self.state.variables.unset(name);
                }
                self.succeed(Some(true))
            }
            "export" => {
                for name in texts()? {
                    self.state.variables.export(name);
                }
                self.succeed(Some(true))
            }
            "setparams" => {
                if args.uncertain.is_some() {
                    texts()?;
                }
                self.state.parameters = Rc::new(args.values.clone());
                self.succeed(Some(true))
            }
            "shift" => {
                let by = texts()?
                    .first()
                    .map_or(Some(1), |text| text.parse::<usize>().ok());
                let parameters = by
                    .and_then(|by| self.state.parameters.get(by..))
                    .map(<[Value]>::to_vec);
                let done = parameters.is_some();
                if let Some(parameters) = parameters {
                    self.state.parameters = Rc::new(parameters);
                }
                self.succeed(Some(done))
            }
            "return" => {
                match texts()?.first() {
                    None => {}
                    Some(number) => self.state.status = Some(*number == "0"),
                }
                self.state.flow = Flow::Return;
                Ok(())
            }
            "break" | "continue" => {
                let loops = texts()?
                    .first()
                    .map_or(Some(1), |text| text.parse::<usize>().ok());
                let Some(loops) = loops.filter(|loops| *loops > 0) else {
                    return because(self.place(line), name);
                };
                self.state.flow = if name == "break" {
                    Flow::Break(loops)
                } else {
                    Flow::Continue(loops)
                };
                self.succeed(Some(true))
            }
            "menuentry" | "submenu" => self.menu_entry(line, name, args, block),
            "load_env" => self.load_env(line, args),
            "save_env" => self.save_env(line, args),
            "source" | "." => {
                let texts = texts()?;
                let [path] = texts[..] else {
                    return because(self.place(line), format!("{name} with {} arguments", texts.len()));
                };
                self.deeper(|machine| machine.source(path).map(drop))?;
                self.succeed(Some(true))
            }
            "configfile" => {
                let texts = texts()?;
                let [path] = texts[..] else {
                    return because(self.place(line), "configfile without a path");
                };
                self.state.variables.enter_context();
                self.state.menu = super::menu::Menu::default();
                self.deeper(|machine| machine.normal(Some(path)))
            }
            "normal" => {
                let path = texts()?.first().map(|path| (*path).to_owned());
                self.deeper(|machine| machine.normal(path.as_deref()))
            }
            "search" | "search.file" | "search.fs_label" | "search.fs_uuid" => self.search(line, name, args),
            "hwmatch" => {
                let why = format!("the graphics hardware (line {line} of {})", self.file);
                self.state.variables.set("match", Value::unknown(why));
                self.succeed(None)
            }
            "probe" | "regexp" | "smbios" => self.sets_something(line, name, args),
            "increment" | "decrement" => self.count(line, name, args),
            // A 64-bit processor.
            "cpuid" => self.succeed((args.texts() == Ok(vec!["-l"])).then_some(true)),
            "fwsetup" if args.texts() != Ok(vec!["--is-supported"]) => because(self.place(line), "fwsetup"),
            "linux" | "linux16" | "linuxefi" => self.linux(line, args),
            "initrd" | "initrd16" | "initrdefi" => self.initrd(line, args),
            "boot" => match self.state.loaded.clone() {
                Loaded::Kernel(entry) => Err(Stop::Boot(entry)),
                Loaded::Unknown(why) => because(self.place(line), why.to_string()),
                Loaded::Nothing => because(self.place(line), "boot without a kernel"),
            },
            "blscfg" => self.blscfg(line, args),
            _ if HARMLESS.contains(&name) => self.succeed(None),
            _ => self.function(line, name, args),
        }
    }

    fn undecided(&self, line: usize, what: String) -> Stop {
        Stop::Undecided(crate::entry::Undecided::because(self.place(line), what))
    }

    fn function(&mut self, line: usize, name: &str, args: &Args) -> Run {
        if let Some(body) = self.state.functions.get(name).cloned() {
            if let Some(why) = &args.uncertain {
                return because(self.place(line), format!("{name} with {why}"));
            }
            let outer = std::mem::replace(&mut self.state.parameters, Rc::new(args.values.clone()));
            self.deeper(|machine| machine.block(&body))?;
            self.state.parameters = outer;
            self.state.flow = Flow::Next;
            return Ok(());
        }
        if let Some((variable, value)) = name.split_once('=') {
            self.state.variables.set(variable, Value::known(value));
            return self.succeed(Some(true));
        }
        if FUNCTIONS.contains(&name) {
            return self.succeed(Some(false));
        }
        because(self.place(line), format!("the command {name}"))
    }

    fn set(&mut self, line: usize, args: &Args) -> Run {
        if let Some(why) = &args.uncertain {
            // `set x=$unknown` without quotes.
            let name = args.values.first().and_then(|value| value.text().ok());
            return because(
                self.place(line),
                format!("set {} with {why}", name.unwrap_or_default()),
            );
        }
        let Some(assignment) = args.values.first() else {
            return self.succeed(Some(true));
        };
        match assignment.text() {
            Ok(text) => {
                if let Some((name, value)) = text.split_once('=') {
                    let value = Value::known(value);
                    self.state.variables.set(name, value);
                }
                self.succeed(Some(true))
            }
            Err(why) => because(self.place(line), format!("set with {why}")),
        }
    }

    /// Commands with `--set VARIABLE`, whose results depend on the machine.
    fn sets_something(&mut self, line: usize, name: &str, args: &Args) -> Run {
        let texts = args
            .texts()
            .map_err(|why| self.undecided(line, format!("{name} with {why}")))?;
        let mut names = Vec::new();
        let mut texts = texts.into_iter();
        while let Some(text) = texts.next() {
            match text.strip_prefix("--set=").or_else(|| text.strip_prefix("-s=")) {
                Some(variable) => names.push(variable.to_owned()),
                None if text == "--set" || text == "-s" => names.extend(texts.next().map(str::to_owned)),
                None => {}
            }
        }
        for variable in names {
            // `regexp --set 1:NAME`.
            let variable = variable
                .rsplit_once(':')
                .map_or(variable.as_str(), |(_, variable)| variable);
            let why = format!("what {name} finds (line {line} of {})", self.file);
            self.state.variables.set(variable, Value::unknown(why));
        }
        self.succeed(None)
    }

    /// Red Hat's `increment NAME` and `decrement NAME`.
    fn count(&mut self, line: usize, name: &str, args: &Args) -> Run {
        let texts = args
            .texts()
            .map_err(|why| self.undecided(line, format!("{name} with {why}")))?;
        let [variable] = texts[..] else {
            return because(self.place(line), name);
        };
        let number = match self.state.variables.get(variable) {
            Value::Known(text) => text.parse::<i64>().ok(),
            unknown @ Value::Unknown(_) => {
                self.state.variables.set(variable, unknown);
                return self.succeed(None);
            }
        };
        let Some(number) = number.filter(|number| (1..1 << 30).contains(number)) else {
            return because(
                self.place(line),
                format!("{name} of something that is no number above zero"),
            );
        };
        let number = if name == "increment" {
            number + 1
        } else {
            number - 1
        };
        self.state
            .variables
            .set(variable, Value::known(number.to_string()));
        self.succeed(Some(true))
    }

    fn menu_entry(&mut self, line: usize, name: &str, args: &Args, block: Option<&Block>) -> Run {
        if let Some(why) = &args.uncertain {
            return because(self.place(line), format!("{name} with {why}"));
        }
        let Some(block) = block else {
            return because(self.place(line), format!("{name} without a block"));
        };
        let Some((options, others)) = options(&args.values, MENU_OPTIONS) else {
            return because(
                self.place(line),
                format!("{name} with an option that is not known"),
            );
        };
        let Some(title) = others.first().cloned() else {
            return because(self.place(line), format!("{name} without a title"));
        };
        let mut id = None;
        let (mut users, mut unrestricted) = (false, false);
        for (option, argument) in options {
            match option {
                "id" => id = argument,
                "users" => users = true,
                "unrestricted" => unrestricted = true,
                "source" => return because(self.place(line), format!("{name} with --source")),
                _ => {}
            }
        }
        self.state.menu.push(Item {
            id: id.unwrap_or_else(|| title.clone()),
            title,
            parameters: Rc::new(others),
            body: Ok(Rc::clone(block)),
            file: Rc::clone(&self.file),
            submenu: name == "submenu",
            // `--unrestricted` counts only without `--users`.
            restricted: users || !unrestricted,
        });
        self.succeed(Some(true))
    }

    /// The path of an environment block, whether it is the usual one, and the variables that are named.
    fn environment_file(&mut self, line: usize, name: &str, args: &Args) -> Run<(String, bool, Vec<String>)> {
        let texts = args
            .texts()
            .map_err(|why| self.undecided(line, format!("{name} with {why}")))?;
        drop(texts);
        let Some((options, others)) = options(&args.values, FILE_OPTIONS) else {
            return because(
                self.place(line),
                format!("{name} with an option that is not known"),
            );
        };
        let file = options.iter().find(|(option, _)| *option == "file");
        let usual = format!("{}/grubenv", self.text_of("prefix")?);
        let path = match file {
            Some((_, Some(path))) => path.text().unwrap_or_default().to_owned(),
            _ => usual.clone(),
        };
        // Configurations also spell it as ${config_directory}/grubenv.
        let is_usual = self.locate(&path) == self.locate(&usual);
        let names = others
            .iter()
            .filter_map(|name| name.text().ok())
            .map(str::to_owned);
        Ok((path, is_usual, names.collect()))
    }

    fn load_env(&mut self, line: usize, args: &Args) -> Run {
        let (path, usual, names) = self.environment_file(line, "load_env", args)?;
        let block = match self.read(&path, MAX_ENVIRONMENT)? {
            None => return self.succeed(Some(false)),
            Some((_, content)) => environment::Block::parse(&content),
        };
        let Some(environment::Block(pairs)) = block else {
            return because(path, "a file that is no environment block");
        };
        let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
        let saved = if usual {
            self.state.saved.clone()
        } else {
            environment::Saved::default()
        };
        for (name, value) in pairs {
            if wanted(&name) && !saved.contains_key(&name) {
                self.state.variables.set(&name, Value::known(value));
            }
        }
        for (name, value) in saved {
            if let Some(value) = value.filter(|_| wanted(&name)) {
                self.state.variables.set(&name, value);
            }
        }
        self.succeed(Some(true))
    }

    fn save_env(&mut self, line: usize, args: &Args) -> Run {
        let (path, usual, names) = self.environment_file(line, "save_env", args)?;
        if !usual {
            return because(self.place(line), "save_env to another file");
        }
        let present = match self.read(&path, MAX_ENVIRONMENT)? {
            None => return self.succeed(Some(false)),
            Some((_, content)) => environment::Block::parse(&content),
        };
        let Some(environment::Block(pairs)) = present else {
            return because(path, "a file that is no environment block");
        };
        for name in names {
            let value = self
                .state
                .variables
                .is_set(&name)
                .then(|| self.state.variables.get(&name));
            let on_disk = pairs.iter().rev().find(|(found, _)| *found == name);
            // What is there already is not written.
            if value == on_disk.map(|(_, value)| Value::known(value)) {
                self.state.saved.remove(&name);
            } else {
                self.state.saved.insert(name, value);
            }
        }
        self.succeed(Some(true))
    }

    fn linux(&mut self, line: usize, args: &Args) -> Run {
        let texts = match args.texts() {
            Ok(texts) => texts,
            Err(why) => {
                let why = format!(
                    "the kernel's command line with {why} (line {line} of {})",
                    self.file
                );
                self.state.loaded = Loaded::Unknown(Rc::from(why));
                return self.succeed(None);
            }
        };
        let Some((path, options)) = texts.split_first() else {
            return because(self.place(line), "linux without a kernel");
        };
        let kernel = self.file_place(line, path)?;
        let mut cmdline = format!("BOOT_IMAGE={}", quoted(path));
        for option in options {
            cmdline.push(' ');
            cmdline.push_str(&quoted(option));
        }
        self.state.loaded = Loaded::Kernel(Rc::new(BootEntry {
            kernel,
            initrds: Vec::new(),
            cmdline,
        }));
        self.succeed(Some(true))
    }

    fn initrd(&mut self, line: usize, args: &Args) -> Run {
        let entry = match &self.state.loaded {
            Loaded::Kernel(entry) => Rc::clone(entry),
            Loaded::Unknown(_) => return self.succeed(None),
            Loaded::Nothing => return because(self.place(line), "initrd before linux"),
        };
        let texts = match args.texts() {
            Ok(texts) => texts,
            Err(why) => {
                let why = format!("the initrd with {why} (line {line} of {})", self.file);
                self.state.loaded = Loaded::Unknown(Rc::from(why));
                return self.succeed(None);
            }
        };
        let mut initrds = Vec::new();
        for path in texts {
            if path.starts_with("newc:") {
                return because(self.place(line), "an initrd that GRUB makes itself (newc:)");
            }
            initrds.push(self.file_place(line, path)?);
        }
        self.state.loaded = Loaded::Kernel(Rc::new(BootEntry {
            initrds,
            ..(*entry).clone()
        }));
        self.succeed(Some(true))
    }

    /// A file that has to be there.
    fn file_place(&self, line: usize, path: &str) -> Run<Place> {
        let place = match self.locate(path) {
            Ok(place) => place,
            Err(why) => return because(self.place(line), why.to_string()),
        };
        let place = place.filter(|place| !place.path.is_empty());
        let missing = || because(self.place(line), format!("{path}, which is not there"));
        let Some(place) = place else { return missing() };
        match self.kind(path)? {
            Ok(Some(Kind::File(_))) => Ok(place),
            _ => missing(),
        }
    }
}

/// An argument as GRUB writes it into a kernel's command line.
pub(crate) fn quoted(argument: &str) -> String {
    let mut out = String::new();
    let spaces = argument.contains(' ');
    if spaces {
        out.push('"');
    }
    let mut rest = argument;
    while let Some(c) = rest.chars().next() {
        let hex = rest.strip_prefix("\\x").and_then(|rest| rest.get(..2));
        if hex.is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit())) {
            out.push_str(&rest[..4]);
            rest = &rest[4..];
            continue;
        }
        if matches!(c, '\\' | '\'' | '"') {
            out.push('\\');
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    if spaces {
        out.push('"');
    }
    out
}
