//! [`Renderer`]: the host's Vulkan, opened once, and the maker of contexts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hesper_venus_protocol::EXTENSIONS;

use crate::capset::{self, Capset};
use crate::context::Context;
use crate::context::endings::Endings;
use crate::context::events::ContextEvents;
use crate::context::state::{ContextState, Shared};
use crate::context::thread;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::guest_pools::GuestPools;
use crate::host::{Findings, Gpu, GpuFacts, Host, Importable};
use crate::memory::{GuestMemories, HostMappings, Mappings};
use crate::object::cache_seal::CacheSeal;
use crate::options::{DisplayServer, RendererOptions};
use crate::platform;
use crate::report::Record;
use crate::trace::Trace;

/// Pieces of guest memory that contexts may name. This is a quarter of the mappings that Linux
/// allows a process by default. Blobs need mappings, too.
const GUEST_MAPPINGS: usize = 16_384;

/// The renderer. Its contexts work on their own, and dropping it does not end them.
/// [`Renderer::settle`] waits for contexts that were dropped.
pub struct Renderer {
    shared: Shared,
    findings: Findings,
}

impl Renderer {
    /// Opens the host's Vulkan, picks the GPUs that guests will see, and tests that guests can
    /// share memory with them.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::TooOld`] and [`Error::NoGpu`] when this host cannot serve.
    /// [`Error::Vulkan`] when its driver fails.
    pub fn new(options: RendererOptions) -> Result<Self> {
        let host = Host::load(&options.driver)?;
        let (gpus, findings) =
            GpuFacts::gather(&host, &options.gpu, options.queues, &options.findings)?;
        platform::return_free_memory();
        // Read its key now, while files may still be read.
        CacheSeal::of_user();
        for facts in &gpus {
            log::debug!("guests see {}", facts.gpu);
        }
        let mappings = options.mappings.unwrap_or_else(platform::mappings);
        let descriptors = options.descriptors.unwrap_or_else(platform::descriptors);
        let pieces = pieces(mappings, descriptors);
        let host_mappings = Arc::new(HostMappings::new(mappings));
        let record = Record::new(options.report);
        let tally = record.tally();
        let pools = GuestPools::new(&options.guest, pieces, options.grants.as_ref());
        let shared = Shared {
            host: Arc::new(host),
            gpus: gpus.into(),
            wsi: options.wsi,
            budget: options.budget,
            pools: Arc::new(pools),
            endings: Endings::new(tally.clone()),
            blob_alignment: options.blob_alignment,
            window: options.window,
            device_memory: options.guest.device_memory,
            save_streams: options.save_streams.map(Into::into),
            record,
            tally,
            trace: options.trace,
            bells: options.bells,
            guest_memories: GuestMemories::new(
                Arc::new(Mappings::new(GUEST_MAPPINGS)),
                Arc::clone(&host_mappings),
            ),
            host_mappings,
            presence: Arc::default(),
        };
        Ok(Self { shared, findings })
    }

    /// Waits until all contexts have ended with their threads. All must have been dropped. They end
    /// in the background, and a driver may crash if it is called while the process exits. False
    /// when it took longer than `grace`, or when contexts were given up ([`Counters::given_up`]),
    /// which nobody waits for.
    pub fn settle(&self, grace: Duration) -> bool {
        let until = Instant::now() + grace;
        loop {
            let given_up = self.shared.endings.given_up();
            if Arc::strong_count(&self.shared.presence) <= 1 + given_up {
                return given_up == 0;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The GPUs that guests see.
    pub fn gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.shared.gpus.iter().map(|facts| &facts.gpu)
    }

    /// What the self-tests have found of these GPUs, for another renderer on this host.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Which memory of these GPUs guests can map, in the same order.
    pub fn importable(&self) -> impl Iterator<Item = Importable> {
        self.shared.gpus.iter().map(|facts| Importable {
            types: facts.importable_types,
            alignment: facts.alignment,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.tally.read()
    }

    /// [`RendererOptions::trace`].
    #[must_use]
    pub fn trace(&self) -> Option<&Trace> {
        self.shared.trace.as_ref()
    }

    /// The bytes of the Venus capability set (id 4, version 0).
    #[must_use]
    pub fn capset(&self) -> [u8; capset::SIZE] {
        let extensions: Vec<u32> = EXTENSIONS
            .iter()
            .map(|extension| extension.number)
            .collect();
        let private = |name| {
            EXTENSIONS
                .iter()
                .find(|own| own.name == name)
                .map_or(0, |own| own.spec_version)
        };
        Capset {
            wire_format: 1,
            registry: REGISTRY,
            serialization: private(c"VK_EXT_command_serialization"),
            protocol: private(c"VK_MESA_venus_protocol").min(PROTOCOL),
            extensions: &extensions,
        }
        .to_bytes()
    }

    /// What the threads of a context share, without its threads.
    #[cfg(test)]
    pub(crate) fn state_for_tests(&self, events: Arc<dyn ContextEvents>) -> Arc<ContextState> {
        let state = ContextState::new(1, "test", events, self.shared.clone());
        Arc::new(state.unwrap())
    }

    /// Makes a context. `id` and `name` are for logs; the name is the guest's and untrusted. Its
    /// program presents to `server`. `events` hears what the context has finished.
    ///
    /// # Errors
    /// [`Error::TooManyContexts`] and [`Error::TooManyThreads`] when the guest may have no more.
    /// [`Error::Thread`] when the system has no thread left.
    pub fn create_context(
        &self,
        id: u32,
        name: &str,
        server: DisplayServer,
        events: Arc<dyn ContextEvents>,
    ) -> Result<Context> {
        let mut shared = self.shared.clone();
        shared.wsi = shared.wsi.with(server);
        let wsi = shared.wsi;
        let state = ContextState::new(id, name, events, shared)?;
        log::debug!("context {id} presents with --wsi={wsi}");
        let state = Arc::new(state);
        let for_thread = Arc::clone(&state);
        std::thread::Builder::new()
            .name(format!("venus-{id}"))
            .spawn(move || thread::run(&for_thread))
            .map_err(Error::Thread)?;
        Ok(Context::new(state))
    }
}

/// How many pieces of shared memory contexts may have: each takes a mapping and a descriptor.
///
/// A quarter of the mappings is for the guest's own memory, and what is left by [`HostMappings`].
/// An eighth of the descriptors is for sockets, events, and what drivers open.
fn pieces(mappings: usize, descriptors: usize) -> usize {
    let mappings = mappings - mappings / 8 - mappings / 4;
    let descriptors = descriptors - descriptors / 8;
    mappings.min(descriptors)
}

/// The version of the protocol that guests may use. From 4 on, they would write descriptors into
/// heaps on the host's side, which is not implemented.
const PROTOCOL: u32 = 3;
/// The version of the registry that the protocol's tables were made for.
const REGISTRY: u32 = ash::vk::make_api_version(0, 1, 4, 343);
