//! `top`: what is shown of a running broker.

mod picture;
mod samples;
mod words;
