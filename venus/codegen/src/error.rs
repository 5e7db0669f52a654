//! What can go wrong while generating; every variant says what to do about it.

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
        /// What it said.
        detail: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The registry is not well-formed XML.
    #[error("vk.xml: {0}; is the package in requirements.txt still the Vulkan registry?")]
    Xml(#[from] roxmltree::Error),
    /// The registry has something that the reader doesn't know.
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
    /// The wire rules have no answer for a member.
    #[error("{owner}::{member}: {reason}; teach venus/codegen/src/wire.rs about it")]
    Wire {
        /// Struct or command.
        owner: String,
        /// Member or parameter.
        member: String,
        /// What is not known.
        reason: String,
    },
    /// The generated files differ from those in the tree.
    #[error("generated files are stale: {0}; run `cargo run -p hesper-venus-codegen`")]
    Stale(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
