//! A request's parameters as a tree: `BlockDeviceMapping.1.Ebs.VolumeSize` has four levels.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::refusal::Refusal;

/// Parameters of one request.
const MOST: usize = 20_000;
/// Levels of one parameter. No call has more than half of them.
const DEEPEST: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Node<'a> {
    pub(crate) value: Option<Cow<'a, str>>,
    pub(crate) children: BTreeMap<String, Node<'a>>,
}

impl<'a> Node<'a> {
    /// # Errors
    /// They are too many, too deep, or contradict each other.
    pub(crate) fn of(
        parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Node<'a>, Refusal> {
        let mut root = Node::default();
        for (number, (name, value)) in parameters.enumerate() {
            if number == MOST {
                return Err(Refusal::TooMany(MOST + 1));
            }
            let mut node = &mut root;
            for (level, part) in name.split('.').enumerate() {
                if level == DEEPEST {
                    return Err(Refusal::UnknownParameter(name.into_owned()));
                }
                if node.value.is_some() {
                    return Err(Refusal::ValueAndMembers(name.into_owned()));
                }
                node = node.children.entry(part.to_owned()).or_default();
            }
            if !node.children.is_empty() {
                return Err(Refusal::ValueAndMembers(name.into_owned()));
            }
            if node.value.replace(value).is_some() {
                return Err(Refusal::Twice(name.into_owned()));
            }
        }
        Ok(root)
    }
}
