//! [`WorkerOptions`]: what a worker is told at its start, as JSON on its command line.
//!
//! The spawner gets them before there is a guest: a guest that took the main process over must not
//! choose the driver or the sandbox of a worker.
//!
//! Main process and worker are the same program, so this is no interface: both sides change
//! together. The types of the renderer are repeated here, because only this module stores them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use hesper_venus::{
    Budget, Driver, GpuSelection, GuestBudget, RenderNode, RendererOptions, WsiPolicy,
};
use serde::{Deserialize, Serialize};

use crate::sandbox::SandboxMode;

/// The options of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerOptions {
    driver: DriverFields,
    #[serde(with = "GpuFields")]
    gpu: GpuSelection,
    #[serde(with = "WsiFields")]
    wsi: WsiPolicy,
    #[serde(with = "BudgetFields")]
    budget: Budget,
    #[serde(with = "GuestFields")]
    guest: GuestBudget,
    queues: Option<u32>,
    mappings: Option<usize>,
    descriptors: Option<usize>,
    blob_alignment: u64,
    window: Option<u64>,
    save_streams: Option<AnyPath>,
    /// `--sandbox`.
    sandbox: Option<String>,
}

/// A path, as text if it is some, because people see it in a list of processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum AnyPath {
    Text(String),
    Bytes(Vec<u8>),
}

impl AnyPath {
    fn new(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().to_owned().into_vec()),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes.clone()).into(),
        }
    }
}

/// [`Driver`].
#[derive(Clone, Debug, Serialize, Deserialize)]
enum DriverFields {
    System,
    Library(AnyPath),
    FirstOf(Vec<AnyPath>),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RenderNode")]
struct NodeFields {
    major: u32,
    minor: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "GpuSelection")]
enum GpuFields {
    All,
    Index(usize),
    Name(String),
    Uuid([u8; 16]),
    RenderNode(#[serde(with = "NodeFields")] RenderNode),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WsiPolicy")]
enum WsiFields {
    Auto,
    Software,
    Dmabuf,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Budget")]
struct BudgetFields {
    objects: usize,
    rings: usize,
    command_bytes: u64,
    piece_bytes: usize,
    shared_bytes: u64,
    queued: usize,
    queued_bytes: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "GuestBudget")]
struct GuestFields {
    contexts: usize,
    threads: usize,
    objects: usize,
    queued: usize,
    command_bytes: u64,
    shared_bytes: u64,
    device_memory: Option<u64>,
}

impl WorkerOptions {
    /// The options of a worker whose renderer is made with `renderer`, but for what only one
    /// process can have (its grants and its report).
    pub(crate) fn new(renderer: &RendererOptions, sandbox: Option<SandboxMode>) -> Self {
        let driver = match &renderer.driver {
            Driver::System => DriverFields::System,
            Driver::Library(path) => DriverFields::Library(AnyPath::new(path)),
            Driver::FirstOf(paths) => {
                DriverFields::FirstOf(paths.iter().map(|path| AnyPath::new(path)).collect())
            }
        };
        let sandbox =
            sandbox.and_then(|mode| Some(mode.to_possible_value()?.get_name().to_owned()));
        Self {
            driver,
            gpu: renderer.gpu.clone(),
            wsi: renderer.wsi,
            budget: renderer.budget,
            guest: renderer.guest,
            queues: renderer.queues,
            mappings: renderer.mappings,
            descriptors: renderer.descriptors,
            blob_alignment: renderer.blob_alignment,
            window: renderer.window,
            save_streams: renderer.save_streams.as_deref().map(AnyPath::new),
            sandbox,
        }
    }

    /// `--sandbox`.
    pub(super) fn sandbox(&self) -> Option<SandboxMode> {
        SandboxMode::from_str(self.sandbox.as_ref()?, false).ok()
    }

    /// The library of the driver, if one was chosen.
    pub(super) fn library(&self) -> Option<PathBuf> {
        match &self.driver {
            DriverFields::Library(path) => Some(path.path()),
            DriverFields::System | DriverFields::FirstOf(_) => None,
        }
    }

    /// Whether the GPU was chosen by its place among all.
    pub(super) fn is_by_place(&self) -> bool {
        matches!(self.gpu, GpuSelection::Index(_))
    }

    /// The folder for saved command streams.
    pub(super) fn save_streams(&self) -> Option<PathBuf> {
        self.save_streams.as_ref().map(AnyPath::path)
    }

    /// The options of the worker's renderer.
    pub(super) fn renderer(self) -> RendererOptions {
        RendererOptions {
            save_streams: self.save_streams(),
            driver: match self.driver {
                DriverFields::System => Driver::System,
                DriverFields::Library(path) => Driver::Library(path.path()),
                DriverFields::FirstOf(paths) => {
                    Driver::FirstOf(paths.iter().map(AnyPath::path).collect())
                }
            },
            gpu: self.gpu,
            wsi: self.wsi,
            budget: self.budget,
            guest: self.guest,
            queues: self.queues,
            mappings: self.mappings,
            descriptors: self.descriptors,
            blob_alignment: self.blob_alignment,
            window: self.window,
            ..RendererOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn the_worker_gets_the_options_of_the_main_process() {
        let strange = PathBuf::from(OsString::from_vec(vec![b'/', 0xff, b'"']));
        let gpus = [
            GpuSelection::All,
            GpuSelection::Index(3),
            GpuSelection::Name("a \"GPU\"".to_owned()),
            GpuSelection::Uuid([7; 16]),
            GpuSelection::RenderNode(RenderNode {
                major: 226,
                minor: 128,
            }),
        ];
        let drivers = [
            Driver::System,
            Driver::Library(strange.clone()),
            Driver::FirstOf(vec!["libvulkan.so.1".into(), strange.clone()]),
        ];
        for (gpu, driver) in gpus.into_iter().zip(drivers.into_iter().cycle()) {
            let renderer = RendererOptions {
                driver,
                gpu,
                wsi: WsiPolicy::Dmabuf,
                queues: Some(5),
                mappings: Some(6),
                window: Some(u64::MAX),
                blob_alignment: 1 << 16,
                save_streams: Some(strange.clone()),
                ..RendererOptions::default()
            };
            let options = WorkerOptions::new(&renderer, Some(SandboxMode::Log));
            let text = serde_json::to_string(&options).unwrap();
            let arrived: WorkerOptions = serde_json::from_str(&text).unwrap();
            assert_eq!(arrived.sandbox(), Some(SandboxMode::Log));
            assert_eq!(format!("{:?}", arrived.renderer()), format!("{renderer:?}"));
        }
    }
}
