//! The command `search` (GRUB manual, "search").

use super::commands::{Options, Takes, options};
use super::run::{Machine, Run, because};
use super::values::{Args, Value};
use crate::fs::Kind;

const OPTIONS: Options = &[
    ("file", 'f', Takes::Nothing),
    ("label", 'l', Takes::Nothing),
    ("fs-uuid", 'u', Takes::Nothing),
    ("set", 's', Takes::Optional),
    ("no-floppy", 'n', Takes::Nothing),
    ("efidisk-only", '\0', Takes::Nothing),
    ("root-dev-only", 'r', Takes::Nothing),
    ("hint", 'h', Takes::Required),
    ("hint-ieee1275", '\0', Takes::Required),
    ("hint-bios", '\0', Takes::Required),
    ("hint-baremetal", '\0', Takes::Required),
    ("hint-efi", '\0', Takes::Required),
    ("hint-arc", '\0', Takes::Required),
];

impl Machine<'_> {
    pub(super) fn search(&mut self, line: usize, name: &str, args: &Args) -> Run {
        let texts = match args.texts() {
            Ok(texts) => texts,
            Err(why) => return because(self.place(line), format!("{name} with {why}")),
        };
        let (by, wanted, variable) = if let Some(by) = name.strip_prefix("search.") {
            let [wanted, rest @ ..] = &texts[..] else {
                return because(self.place(line), format!("{name} without an argument"));
            };
            let by = match by {
                "fs_uuid" => "fs-uuid",
                "fs_label" => "label",
                _ => "file",
            };
            (
                by,
                (*wanted).to_owned(),
                rest.first().map(|name| (*name).to_owned()),
            )
        } else {
            let Some((options, others)) = options(&args.values, OPTIONS) else {
                return because(
                    self.place(line),
                    format!("{name} with an option that is not known"),
                );
            };
            let given = |option: &str| options.iter().find(|(name, _)| *name == option);
            let by = ["fs-uuid", "label", "file"]
                .into_iter()
                .find(|by| given(by).is_some());
            let wanted = others.first().and_then(|value| value.text().ok());
            let Some(wanted) = wanted else {
                return because(self.place(line), format!("{name} without an argument"));
            };
            let variable = given("set").map(|(_, variable)| match variable {
                Some(Value::Known(variable)) => variable.to_string(),
                _ => "root".to_owned(),
            });
            let Some(variable) = variable else {
                // It only prints what it finds.
                self.state.status = None;
                return Ok(());
            };
            // Searching by file is what GRUB does without any of the three.
            (by.unwrap_or("file"), wanted.to_owned(), Some(variable))
        };
        let found = self.matching(by, &wanted)?;
        match (&found[..], self.volumes.unread()) {
            ([part], _) => {
                let device = self.volumes.parts[*part].region.device.clone();
                if let Some(variable) = variable {
                    self.state.variables.set(&variable, Value::known(device));
                }
                self.state.status = Some(true);
                Ok(())
            }
            ([], Some(unread)) => because(
                self.place(line),
                format!("a search for {wanted}, which may be on {unread}"),
            ),
            ([], None) => {
                self.state.status = Some(false);
                Ok(())
            }
            _ => because(
                self.place(line),
                format!("a search for {wanted}, which is there more than once"),
            ),
        }
    }

    fn matching(&self, by: &str, wanted: &str) -> Run<Vec<usize>> {
        let mut found = Vec::new();
        for (part, volume) in self.volumes.open_volumes() {
            let matches = match by {
                "fs-uuid" => volume.uuid.eq_ignore_ascii_case(wanted),
                "label" => volume.label == wanted,
                _ => matches!(volume.kind(wanted)?, Some(Kind::File(_))),
            };
            if matches {
                found.push(part);
            }
        }
        Ok(found)
    }
}
