//! Tests over whole worlds: healthy ones, and ones that are broken in one place.

mod broken;
mod documentation;
mod elsewhere;
mod record;
mod reporting;
mod unknown;
mod world;

pub(crate) use world::World;
