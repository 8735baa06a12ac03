//! Generates the gRPC types from `proto/` with protox, so that no protoc is needed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut files = Vec::new();
    for folder in ["hearth/v1", "hearth/agent/v1"] {
        for entry in std::fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    println!("cargo::rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // As protox encodes it: prost-types would lose the options of bounds.proto.
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let files = compiler.file_descriptor_set();
    let of_api = files.file.iter().filter(|file| file.package() == "hearth.v1");
    let services: Vec<&str> = of_api.flat_map(|file| &file.service).map(|s| s.name()).collect();
    std::fs::write(out.join("services.rs"), all_services(&services)?)?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // What is encoded of a message depends on what is in it alone.
    config.btree_map([".hearth.agent.v1"]);
    // A key does not show itself: src/lib.rs says how.
    config.skip_debug([".hearth.agent.v1.DiskKey"]);
    tonic_prost_build::configure()
        .bytes(".hearth.agent.v1.ImageChunk.data")
        .bytes(".hearth.v1.UploadImageRequest.Chunk.data")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds_with_config(files, config)?;
    Ok(())
}

/// The client of all services of the public API, and their names.
fn all_services(services: &[&str]) -> Result<String, std::fmt::Error> {
    let (mut names, mut fields, mut values) = (String::new(), String::new(), String::new());
    for service in services {
        let module = snake_case(service);
        let client = format!("crate::v1::{module}_client::{service}Client");
        writeln!(names, "    \"hearth.v1.{service}\",")?;
        writeln!(fields, "    pub {module}: {client}<Transport>,")?;
        writeln!(
            values,
            "            {module}: {client}::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),"
        )?;
    }
    Ok(format!(
        "/// Full names of the services of the public API.
pub const SERVICES: &[&str] = &[
{names}];

/// All services of the public API over one connection. Cheap to clone; calls of clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {{
{fields}}}

impl Client {{
    /// The services over a connection that exists.
    pub fn new(channel: Transport) -> Self {{
        Self {{
{values}        }}
    }}
}}
"
    ))
}

/// `InstanceTypes` as `instance_types`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
