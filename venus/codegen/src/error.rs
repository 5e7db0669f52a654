//! The generator's errors. Each names the remedy.

use std::path::PathBuf;

/// An error of the generator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A helper program could not be started or failed.
    #[error("{program} failed: {detail}; {remedy}")]
    Tool {
        /// The program.
        program: &'static str,
        /// Its error.
        detail: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The registry is not well-formed XML.
    #[error("vk.xml: {0}; is the package in requirements.txt still the Vulkan registry?")]
    Xml(#[from] roxmltree::Error),
    /// The registry has something that the reader does not support.
    #[error("vk.xml: {0}; teach venus/codegen/src/reader.rs about it")]
    Registry(String),
    /// A data file has a line that cannot be used.
    #[error("data/{file}:{line}: {reason}")]
    Table {
        /// The file below `data/`.
        file: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// No wire rule covers a member.
    #[error("{owner}::{member}: {reason}; teach venus/codegen/src/wire.rs about it")]
    Wire {
        /// Struct or command.
        owner: String,
        /// Member or parameter.
        member: String,
        /// What is not supported.
        reason: String,
    },
    /// The generated files in the tree are not what the generator makes.
    #[error("generated files are stale: {0}; run `cargo run -p hesper-venus-codegen`")]
    Stale(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
