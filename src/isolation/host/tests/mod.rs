//! Tests with a worker that is a thread, and does what a test tells it to.

mod deaths;
mod fake;
mod hostile;
mod inside;
mod random;
mod traces;
mod usual;
