//! Rows of recorded commands (`venus/src/session/recorded.rs`) in whole streams: what ends a row,
//! and what a broken command in one becomes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hostile::numbers::appended;
use hostile::session::{Id, Session, object};
use hostile::{Bench, Outcome, Way, null_driver};

/// Draws of one row. It is longer than the margin that a row keeps from the end of a stream.
const MANY: usize = 20;

fn draw(session: &mut Session, commands: Object<vk::CommandBuffer>) {
    session.push(
        &command::CmdDraw {
            command_buffer: commands,
            vertex_count: 3,
            instance_count: 1,
            first_vertex: 0,
            first_instance: 0,
        },
        false,
    );
}

fn draws(session: &mut Session) {
    for _ in 0..MANY {
        draw(session, object(Id::Commands));
    }
}

fn push_constants(session: &mut Session, layout: u64, offset: u32, reply: bool) {
    session.push(
        &command::CmdPushConstants {
            command_buffer: object(Id::Commands),
            layout: Object::guest(layout),
            stage_flags: vk::ShaderStageFlags::VERTEX,
            offset,
            size: 4,
            p_values: [7; 4].as_mut_slice().into(),
        },
        reply,
    );
}

fn run(more: impl Fn(&mut Session)) -> Outcome {
    let run = |way| Bench::new(null_driver()).run(&appended(&more), way);
    let (one, other) = (run(Way::Virtqueue), run(Way::Ring));
    match (&one, &other) {
        (Outcome::Lost(one), Outcome::Lost(other)) => assert_eq!(one, other),
        _ => assert_eq!(one, other),
    }
    one
}

/// Lost for this reason, at the command that begins after `before`.
#[track_caller]
fn is_lost(before: impl Fn(&mut Session), broken: impl Fn(&mut Session), reason: &str) {
    let place = appended(&before).len();
    let outcome = run(|session| {
        before(session);
        broken(session);
        draws(session);
    });
    let found = outcome.reason();
    assert!(found.contains(reason), "{found}");
    // Errors of the decoder name the byte at which they were found, others the command's first.
    let places = place..place + 64;
    let named = found.split(|c: char| !c.is_ascii_digit());
    let mut numbers = named.filter_map(|number| number.parse::<usize>().ok());
    assert!(
        numbers.any(|number| places.contains(&number)),
        "{found}: {places:?}"
    );
}

#[test]
fn a_row_may_have_commands_that_want_replies_and_others_in_it() {
    let outcome = run(|session| {
        draws(session);
        push_constants(session, Id::PipelineLayout as u64, 0, true);
        draws(session);
        session.push(
            &command::CmdEndRenderPass {
                command_buffer: object(Id::Commands),
            },
            false,
        );
        draws(session);
    });
    assert_eq!(outcome, Outcome::Fine);
}

#[test]
fn a_broken_command_in_a_row_ends_the_context_with_its_reason_and_place() {
    let beyond = |session: &mut Session| {
        push_constants(session, Id::PipelineLayout as u64, 1 << 20, false);
    };
    is_lost(draws, beyond, "push constants");
    let unknown = |session: &mut Session| push_constants(session, 0xdead, 0, false);
    is_lost(draws, unknown, "does not exist");
    let of_another_type =
        |session: &mut Session| push_constants(session, Id::Buffer as u64, 0, false);
    is_lost(draws, of_another_type, "does not exist");
    let nothing = |session: &mut Session| draw(session, Object::guest(0));
    is_lost(draws, nothing, "null");
}

#[test]
fn a_command_buffer_that_is_freed_is_not_found_in_the_next_row() {
    let freed = |session: &mut Session| {
        draws(session);
        session.push(
            &command::FreeCommandBuffers {
                device: object(Id::Device),
                command_pool: object(Id::CommandPool),
                command_buffer_count: 1,
                p_command_buffers: [vk::CommandBuffer(Id::Commands as u64)]
                    .as_mut_slice()
                    .into(),
            },
            false,
        );
    };
    is_lost(
        freed,
        |session| draw(session, object(Id::Commands)),
        "does not exist",
    );
}
