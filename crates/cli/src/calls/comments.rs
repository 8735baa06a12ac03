//! Comments of the protos, which are the help texts.

use prost_reflect::FileDescriptor;

/// The comment in front of what a path of the file leads to, as one paragraph; empty without one.
pub(super) fn of(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut locations = info.into_iter().flat_map(|info| &info.location);
    let comment = locations
        .find(|location| location.path == path)
        .map(|location| location.leading_comments())
        .unwrap_or_default();
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}
