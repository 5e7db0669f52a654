//! [`BudgetClient`]: asks the main process for parts of the guest's budgets.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_venus::{Grants, Resource};

use super::super::channel::{LARGEST_FROM_WORKER, Receiver, Sender};
use super::super::message::Budget;
use super::line::end_process;

/// The budget socket. A thread that asks waits for the answer, and others wait for their turn. The
/// main process answers at once, whatever the worker does.
#[derive(Debug)]
pub(super) struct BudgetClient(Mutex<Ends>);

#[derive(Debug)]
struct Ends {
    sender: Sender,
    answers: Receiver,
}

impl BudgetClient {
    pub(super) fn new(socket: UnixStream) -> Self {
        let socket = Arc::new(socket);
        Self(Mutex::new(Ends {
            sender: Sender::new(Arc::clone(&socket)),
            answers: Receiver::new(socket, LARGEST_FROM_WORKER),
        }))
    }

    /// Sends a question and waits for the amount that answers it. Ends the process when the main
    /// process is gone.
    fn asked(&self, question: Budget) -> u64 {
        let mut ends = self.0.locked();
        if ends.sender.send(&question, &[]).is_err() {
            end_process(1);
        }
        let answer = ends.answers.receive().map(|frame| frame.decode::<Budget>());
        match answer {
            Ok(Ok((Budget::Granted { amount }, _))) => amount,
            Ok(_) => {
                log::error!(
                    "a worker ends, because the main process gave a wrong answer about a budget"
                );
                end_process(1)
            }
            Err(_) => end_process(1),
        }
    }
}

impl Grants for BudgetClient {
    fn ask(&self, what: Resource, amount: u64) -> u64 {
        let pool = what as u8;
        match self.asked(Budget::Ask { pool, amount }) {
            granted if granted >= amount => granted,
            _ => 0,
        }
    }

    fn give_back(&self, what: Resource, amount: u64) {
        let pool = what as u8;
        let message = Budget::GiveBack { pool, amount };
        if self.0.locked().sender.send(&message, &[]).is_err() {
            end_process(1);
        }
    }

    fn left(&self, what: Resource) -> u64 {
        self.asked(Budget::Left { pool: what as u8 })
    }
}
