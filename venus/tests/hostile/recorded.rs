//! Recorded sessions of real guests: Mesa 26.1's Venus on lavapipe, saved with
//! `HESPER_SAVE_STREAMS`. Each file is named after the case of the test client that ran.
//! `venus/tests/sessions/README.md` says how to make them again.

use std::fs;
use std::path::PathBuf;

use hesper_venus_protocol::runtime::{Arena, Decoder};
use hesper_venus_protocol::{CommandId, command, trace, vk};

use super::session::Session;
use super::{REPLIES, REPLY_RESOURCE};

/// A session of a real guest, with its name.
pub fn recorded() -> Vec<(String, Session)> {
    // The fuzzers are a separate crate, beside the tests.
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = ["tests/sessions", "../tests/sessions"]
        .map(|path| package.join(path))
        .into_iter()
        .find(|path| path.is_dir())
        .expect("the sessions are in venus/tests");
    let mut sessions: Vec<(String, Session)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "venus")
        })
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, adapted(&fs::read(&path).unwrap()))
        })
        .collect();
    sessions.sort_by(|(one, _), (other, _)| one.cmp(other));
    sessions
}

/// The same commands for a guest of the test bench. Replies go to its resource, and nothing waits
/// for submissions by another way, which do not exist here.
fn adapted(stream: &[u8]) -> Session {
    let mut arena = Arena::default();
    let mut session = Session::default();
    let mut at = 0;
    while at < stream.len() {
        let mut rest = stream[at..].to_vec();
        let header = Decoder::with_ids(&mut rest, &arena).header().unwrap();
        let mut rest = stream[at..].to_vec();
        let (_, length) = trace::command(&mut rest, &mut arena).unwrap();
        match header.command {
            CommandId::WaitVirtqueueSeqnoMESA => {}
            CommandId::SetReplyCommandStreamMESA => {
                session.push(
                    &command::SetReplyCommandStreamMESA {
                        p_stream: &mut vk::CommandStreamDescriptionMESA {
                            resource_id: REPLY_RESOURCE,
                            offset: 0,
                            size: REPLIES,
                        },
                    },
                    false,
                );
            }
            _ => {
                session.starts.push(session.stream.len());
                session.stream.extend_from_slice(&stream[at..at + length]);
            }
        }
        at += length;
    }
    session
}
