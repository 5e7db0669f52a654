//! Two threads of the renderer that use the same objects.

use hesper_mock_venus::{Ring, RingOptions, VenusGuest as _, bytes};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};

use crate::client::{Attack, Client};

pub(crate) const ATTACKS: &[Attack] = &[
    ("fence-destroyed-in-a-wait", fence_destroyed_in_a_wait),
    ("destroyed-by-two", destroyed_by_two),
    ("device-destroyed-in-use", device_destroyed_in_use),
];

const LARGE: RingOptions = RingOptions {
    buffer: 64 << 10,
    behind: 0,
    reporting_period: 0,
};

fn fence_destroyed_in_a_wait() {
    for _ in 0..5 {
        let client = Client::new();
        let gpu = client.gpu();
        let device = Object::guest(gpu.device);
        let id = client.id();
        client.call(command::CreateFence {
            device,
            p_create_info: &mut vk::FenceCreateInfo::default(),
            p_fence: &mut vk::Fence(id),
        });
        let mut ring = Ring::new(&client, 1);
        ring.write(&bytes(&command::WaitForFences {
            device,
            fence_count: 1,
            p_fences: [vk::Fence(id)].as_mut_slice().into(),
            wait_all: 1,
            timeout: u64::MAX,
        }));
        client.attack(&bytes(&command::DestroyFence {
            device,
            fence: Object::guest(id),
        }));
    }
}

/// Creates, uses and destroys events under the same ids, from a ring and from the queue.
fn destroyed_by_two() {
    for _ in 0..20 {
        let client = Client::new();
        let gpu = client.gpu();
        let device = Object::guest(gpu.device);
        let mut all = Vec::new();
        for id in 100..300 {
            let event = Object::guest(id);
            all.extend(bytes(&command::CreateEvent {
                device,
                p_create_info: &mut vk::EventCreateInfo::default(),
                p_event: &mut vk::Event(id),
            }));
            all.extend(bytes(&command::SetEvent { device, event }));
            all.extend(bytes(&command::DestroyEvent { device, event }));
        }
        let mut ring = Ring::with(&client, 1, LARGE);
        ring.write(&all);
        client.attack(&all);
    }
}

fn device_destroyed_in_use() {
    for _ in 0..10 {
        let client = Client::new();
        let gpu = client.gpu();
        let device = Object::guest(gpu.device);
        let mut use_it = Vec::new();
        for id in 100..400 {
            use_it.extend(bytes(&command::CreateEvent {
                device,
                p_create_info: &mut vk::EventCreateInfo::default(),
                p_event: &mut vk::Event(id),
            }));
        }
        let mut ring = Ring::with(&client, 1, LARGE);
        ring.write(&use_it);
        client.attack(&bytes(&command::DestroyDevice { device }));
    }
}
