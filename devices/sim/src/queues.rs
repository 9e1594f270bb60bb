//! Queues of work that is done late.
//!
//! ```text
//!  compute   [ fill │ launch │ launch │ ... ]      a queue's own order holds; between queues only what events order
//!  copy      [ upload │ upload │ ... ]             done when somebody waits, or by chance
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use trireme_device_codegen::interpreter::{Code, Machine, Random, Schedule, Violation};
use trireme_device_runtime::Queue;

use crate::script::Script;

/// Work.
pub(crate) enum Command {
    Upload {
        at: u64,
        bytes: Vec<u8>,
    },
    Fill {
        at: u64,
        bytes: u64,
        word: u64,
    },
    Copy {
        from: u64,
        to: u64,
        bytes: u64,
    },
    Launch {
        code: Arc<Code>,
        kernel: usize,
        groups: u32,
        block: u64,
    },
    /// What comes after it waits for so many commands of a queue.
    After(Queue, u64),
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<Command>,
    queued: u64,
    done: u64,
}

/// The device: its memory and its queues.
pub(crate) struct Queues {
    pub(crate) machine: Machine,
    works: [Work; 2],
    random: Random,
    schedule: Schedule,
    script: Script,
    launches: u64,
    /// The device's clock, which only work moves.
    clock_ns: u64,
}

fn index(queue: Queue) -> usize {
    match queue {
        Queue::Compute => 0,
        Queue::Copy => 1,
    }
}

const QUEUES: [Queue; 2] = [Queue::Compute, Queue::Copy];

impl Queues {
    pub(crate) fn new(arena_bytes: usize, script: &Script) -> Self {
        Self {
            machine: Machine::new(arena_bytes),
            works: Default::default(),
            random: Random::new(script.seed),
            schedule: Schedule::sequential(),
            script: script.clone(),
            launches: 0,
            clock_ns: 0,
        }
    }

    /// Queues work; some of what waits is done, by chance.
    pub(crate) fn queue(&mut self, queue: Queue, command: Command) -> Result<(), Violation> {
        let work = &mut self.works[index(queue)];
        work.waiting.push_back(command);
        work.queued += 1;
        if !self.script.lag {
            return self.finish(queue, self.queued(queue));
        }
        for _ in 0..self.random.below(4) {
            self.progress(QUEUES[self.random.clone().below(2)])?;
        }
        Ok(())
    }

    /// Commands that were ever queued.
    pub(crate) fn queued(&self, queue: Queue) -> u64 {
        self.works[index(queue)].queued
    }

    /// Whether so many commands are done.
    pub(crate) fn is_done(&self, queue: Queue, count: u64) -> bool {
        self.works[index(queue)].done >= count
    }

    pub(crate) fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    pub(crate) fn launches(&self) -> u64 {
        self.launches
    }

    /// Does what a queue needs until so many of its commands are done; by chance, others too.
    pub(crate) fn finish(&mut self, queue: Queue, count: u64) -> Result<(), Violation> {
        while !self.is_done(queue, count) {
            let any = QUEUES[self.random.below(2)];
            if !self.progress(any)? {
                self.progress(queue)?;
            }
        }
        Ok(())
    }

    /// Does the first command of a queue, or one that it waits for; false if there is none.
    pub(crate) fn progress(&mut self, queue: Queue) -> Result<bool, Violation> {
        let work = &mut self.works[index(queue)];
        match work.waiting.front() {
            None => return Ok(false),
            Some(Command::After(other, count)) => {
                let (other, count) = (*other, *count);
                if !self.is_done(other, count) {
                    return self.progress(other);
                }
            }
            Some(_) => {}
        }
        let work = &mut self.works[index(queue)];
        let Some(command) = work.waiting.pop_front() else {
            return Ok(false);
        };
        work.done += 1;
        self.run(command)?;
        Ok(true)
    }

    fn run(&mut self, command: Command) -> Result<(), Violation> {
        let ns = match command {
            Command::Upload { at, bytes } => {
                self.machine.write(at, &bytes)?;
                1_000 + bytes.len() as u64 / 10
            }
            Command::Fill { at, bytes, word } => {
                // The last word of a fill may end in the free bytes behind an allocation.
                let inside = (1..8).find(|more| self.machine.read(at, bytes - more).is_ok());
                match self.machine.read(at, bytes).is_ok() {
                    true => self.machine.fill(at, bytes, word)?,
                    false => {
                        let bytes = inside.map_or(bytes, |more| bytes - more);
                        let slab = self.machine.slab(at, bytes)?;
                        for (byte, from) in slab.iter_mut().zip(word.to_le_bytes().into_iter().cycle()) {
                            *byte = from;
                        }
                    }
                }
                1_000 + bytes / 100
            }
            Command::Copy { from, to, bytes } => {
                self.machine.copy(from, to, bytes)?;
                1_000 + bytes / 100
            }
            Command::Launch {
                code,
                kernel,
                groups,
                block,
            } => {
                let schedule = self.next_schedule();
                let stats = self.machine.run(&code, kernel, groups, block, &schedule)?;
                5_000 + stats.operations / 10
            }
            Command::After(..) => 0,
        };
        self.clock_ns += ns;
        Ok(())
    }

    fn next_schedule(&mut self) -> Schedule {
        self.launches += 1;
        if !self.script.scheduled {
            return self.schedule;
        }
        let seed = self.script.schedule.unwrap_or_else(|| self.random.draw() >> 32);
        let drawn = Schedule::seeded(seed);
        Schedule {
            races: self.script.races,
            stale: drawn.stale && self.script.stale,
            ..drawn
        }
    }
}
