//! `--isolate`: whether contexts get processes of their own.

use std::sync::Arc;

use clap::ValueEnum;
use hesper_venus::host::GpuKind;
use hesper_venus::{Renderer, RendererOptions};

use super::host::IsolatedContexts;
use super::options::WorkerOptions;
use super::spawner::Spawner;
use crate::cli::{ConfinementOptions, Switch};
use crate::contexts::Contexts;

/// The environment variable for the choice when `--isolate` is not given.
const VARIABLE: &str = "HESPER_ISOLATE";

/// Where contexts will be.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// Starts their processes. Without it, contexts are in this process.
    spawner: Option<Arc<Spawner>>,
    /// Whether the user asked for processes.
    is_asked: bool,
}

impl Isolation {
    /// Contexts in this process.
    pub(crate) fn off() -> Self {
        Self {
            spawner: None,
            is_asked: false,
        }
    }

    /// Starts what `--isolate` needs. Call this before the sandbox, with the options of the
    /// renderer that is going to be made.
    ///
    /// # Errors
    /// The variable has a wrong value, or the user asked for processes and they cannot be had.
    pub(crate) fn start(
        confinement: ConfinementOptions,
        renderer: &RendererOptions,
    ) -> Result<Self, String> {
        let asked = match confinement.isolate {
            Some(asked) => Some(asked),
            None => from_environment()?,
        };
        let mut isolation = Self {
            spawner: None,
            is_asked: asked == Some(Switch::On),
        };
        if asked == Some(Switch::Off) {
            return Ok(isolation);
        }
        let options = WorkerOptions::new(renderer, confinement.sandbox);
        let started = serde_json::to_string(&options)
            .map_err(|error| error.to_string())
            .and_then(|options| Spawner::start(&options).map_err(|error| error.to_string()));
        match started {
            Ok(spawner) => isolation.spawner = Some(spawner),
            Err(reason) => isolation.fail(&reason)?,
        }
        Ok(isolation)
    }

    /// The contexts of the guest. `renderer` has found out what works on this host. If contexts get
    /// processes, each of them makes one of its own with the same `options` and with what this one
    /// has found, and this one is dropped. Call this after the sandbox has started.
    ///
    /// # Errors
    /// The user asked for processes and they cannot be had.
    pub(crate) fn contexts(
        mut self,
        renderer: Renderer,
        options: &RendererOptions,
    ) -> Result<Arc<dyn Contexts>, String> {
        if let Some(spawner) = self.spawner.take() {
            match spawner.watch() {
                Ok(()) => {
                    let capset = renderer.capset();
                    let findings = renderer.findings().to_bytes();
                    // This process needs no driver any more, unless the windows do.
                    drop(renderer);
                    log::info!(
                        "the guest's programs run in processes of their own (--isolate=off: in Hesper's process)"
                    );
                    return Ok(IsolatedContexts::start(spawner, capset, findings, options));
                }
                Err(error) => self.fail(&error.to_string())?,
            }
        }
        if renderer.gpus().any(|gpu| gpu.kind == GpuKind::Cpu) {
            log::warn!(
                "the guest must be trusted: its GPU is a software driver, which runs shaders in Hesper's own process; for other guests, start Hesper with --isolate=on"
            );
        }
        Ok(Arc::new(renderer))
    }

    /// Reports that there are no processes for contexts.
    fn fail(&self, reason: &str) -> Result<(), String> {
        let text = format!("the guest's programs cannot have processes of their own: {reason}");
        if self.is_asked {
            return Err(format!(
                "{text}; --isolate=off runs them in Hesper's process"
            ));
        }
        log::warn!("{text}; they run in Hesper's process and can crash it (docs/threat-model.md)");
        Ok(())
    }
}

/// The choice of the environment.
fn from_environment() -> Result<Option<Switch>, String> {
    let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let Some(value) = value else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    Switch::from_str(&text, false)
        .map(Some)
        .map_err(|_| format!("{VARIABLE}={text:?} is not known; allowed: on, off"))
}
