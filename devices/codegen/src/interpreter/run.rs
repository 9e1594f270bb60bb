//! A launch: work-items that take turns, groups that come and go, barriers.

use super::bits::Bits;
use super::compile::{GROUP_INDEX, GROUPS, KernelCode, LOCAL_INDEX};
use super::machine::{Machine, Stats, position};
use super::memory::{Allocations, Memory};
use super::races::{Access, Actor, Race, Races, Shadow};
use super::schedule::{GroupOrder, Order, Random, Schedule};
use super::violation::{Violation, ViolationKind, Wrong};

/// Accesses after which a starved work-item is interrupted at the latest.
const STARVED_AFTER: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    AtBarrier,
    Done,
}

/// A work-item.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) next: usize,
    pub(super) registers: Vec<Bits>,
    /// Registers that have a value, of those that are looked at.
    pub(super) marks: Vec<bool>,
    pub(super) state: State,
    pub(super) operations: u64,
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) local: Memory,
    pub(super) shadow: Shadow,
    waiting: usize,
    done: usize,
}

pub(super) struct Running<'a> {
    pub(super) memory: &'a mut Memory,
    pub(super) allocations: &'a Allocations,
    pub(super) code: &'a KernelCode,
    pub(super) items: Vec<Item>,
    pub(super) groups: Vec<Group>,
    pub(super) races: Option<(Races, Shadow)>,
    pub(super) stats: Stats,
    /// Allocations that were found last, by operation.
    pub(super) recent: [(u64, u64); 64],
    group_items: usize,
    schedule: Schedule,
    pub(super) random: Random,
    /// Atomic loads may give older values.
    pub(super) stale: bool,
    /// Work-items that can go on.
    ready: Vec<usize>,
    /// Groups that have not begun, last first.
    later: Vec<usize>,
    turn: usize,
    starved: (usize, u64),
}

impl<'a> Running<'a> {
    pub(super) fn new(
        machine: &'a mut Machine,
        code: &'a KernelCode,
        group: u32,
        groups: u32,
        block: u64,
        schedule: &Schedule,
    ) -> Result<Self, Violation> {
        let count = position(u64::from(group) * u64::from(groups));
        let mut running = Self {
            memory: &mut machine.memory,
            allocations: &machine.allocations,
            code,
            items: Vec::with_capacity(count),
            groups: Vec::new(),
            races: schedule.races.then(|| (Races::new(count), Shadow::default())),
            stats: Stats::default(),
            recent: [(0, 0); 64],
            group_items: position(u64::from(group)),
            schedule: *schedule,
            random: Random::new(schedule.seed ^ 0x5c4e_d01e),
            stale: schedule.races && schedule.stale,
            ready: Vec::new(),
            later: Vec::new(),
            turn: 0,
            starved: (0, 0),
        };
        let registers = running.first_registers(groups, block)?;
        for item in 0..group * groups {
            let mut registers = registers.clone();
            registers[LOCAL_INDEX as usize] = Bits::from(item % group);
            registers[GROUP_INDEX as usize] = Bits::from(item / group);
            running.items.push(Item {
                next: 0,
                marks: vec![false; registers.len()],
                registers,
                state: State::Ready,
                operations: 0,
            });
        }
        let local_bytes = position(code.local_bytes);
        running.groups.extend((0..groups).map(|_| Group {
            local: Memory::new(local_bytes),
            shadow: Shadow::default(),
            waiting: 0,
            done: 0,
        }));
        running.later = (0..running.groups.len()).collect();
        if schedule.groups != GroupOrder::Descending {
            running.later.reverse();
        }
        running.starve();
        Ok(running)
    }

    /// Registers with the block's words in them.
    fn first_registers(&mut self, groups: u32, block: u64) -> Result<Vec<Bits>, Violation> {
        let code = self.code;
        let mut registers = code.registers.clone();
        registers[GROUPS as usize] = Bits::from(groups);
        for (word, reg) in &code.words {
            let what = |mut wrong: Wrong| {
                wrong.what = format!("word {word} of the block: {}", wrong.what);
                self.violation(wrong, None)
            };
            let at = block + u64::from(*word) * 8;
            let (_, end) = self.allocations.find(block).map_err(what)?;
            let (kind, wrong) = if !at.is_multiple_of(8) {
                (ViolationKind::Misaligned, "the block is not aligned")
            } else if at + 8 > end {
                (ViolationKind::OutOfBounds, "the block is too short")
            } else if !self.memory.is_written(position(at), 8) {
                (ViolationKind::UninitialisedMemory, "it was never written")
            } else {
                registers[*reg as usize] = self.memory.get(position(at), 8);
                if let Some((races, shadow)) = &mut self.races {
                    let nobody = Actor { item: 0, op: 0 };
                    // The first access to a place races with none.
                    let _ = races.access(shadow, at, 8, Access::ReadConstant, nobody);
                }
                continue;
            };
            return Err(self.violation(Wrong::at(kind, at, wrong), None));
        }
        Ok(registers)
    }

    /// Until all work-items are done.
    pub(super) fn run(mut self) -> Result<Stats, Violation> {
        loop {
            if self.ready.is_empty() && !self.begin_groups() {
                return Ok(self.stats);
            }
            let place = self.choose();
            let item = self.ready[place];
            let accesses = match self.schedule.order {
                Order::RoundRobin => 1,
                Order::OneByOne | Order::Reverse => u64::MAX,
                Order::Random { burst } | Order::Starve { burst } => {
                    1 + self.random.below(position(u64::from(burst))) as u64
                }
            };
            let before = self.stats.accesses;
            self.advance(item, accesses)
                .map_err(|wrong| self.violation(wrong, Some(item)))?;
            if self.starved.0 == item {
                self.starved.1 = self.starved.1.saturating_sub(self.stats.accesses - before);
            }
            match self.items[item].state {
                State::Ready => {}
                State::AtBarrier => {
                    self.ready.swap_remove(place);
                    self.groups[item / self.group_items].waiting += 1;
                    self.meet(item)?;
                }
                State::Done => {
                    self.ready.swap_remove(place);
                    self.groups[item / self.group_items].done += 1;
                    self.meet(item)?;
                }
            }
        }
    }

    /// The next groups, if there are any.
    fn begin_groups(&mut self) -> bool {
        let count = match self.schedule.groups {
            GroupOrder::Interleaved => self.later.len(),
            GroupOrder::Ascending | GroupOrder::Descending => self.later.len().min(1),
        };
        for group in self.later.split_off(self.later.len() - count) {
            self.ready
                .extend(group * self.group_items..(group + 1) * self.group_items);
        }
        count > 0
    }

    /// Whose turn it is: a place in `ready`.
    fn choose(&mut self) -> usize {
        let count = self.ready.len();
        let by_number = |place: &usize| self.ready[*place];
        match self.schedule.order {
            Order::RoundRobin => {
                self.turn = (self.turn + 1) % count;
                self.turn
            }
            Order::OneByOne => (0..count).min_by_key(by_number).unwrap_or(0),
            Order::Reverse => (0..count).max_by_key(by_number).unwrap_or(0),
            Order::Random { .. } => self.random.below(count),
            Order::Starve { .. } => {
                let place = self.random.below(count);
                if self.ready[place] != self.starved.0 || self.starved.1 > 0 {
                    return place;
                }
                if count > 1 {
                    return (place + 1) % count;
                }
                // No other can go on: it is another's turn to starve.
                self.starve();
                place
            }
        }
    }

    /// Draws who starves, and after how many accesses.
    fn starve(&mut self) {
        let longest = 1 + self.random.below(STARVED_AFTER);
        self.starved = (self.random.below(self.items.len()), self.random.below(longest) as u64);
    }

    /// A work-item came to a barrier or to its end: whether its group goes on.
    fn meet(&mut self, item: usize) -> Result<(), Violation> {
        let number = item / self.group_items;
        let group = &mut self.groups[number];
        if group.waiting == 0 || group.waiting + group.done < self.group_items {
            return Ok(());
        }
        let members = number * self.group_items..(number + 1) * self.group_items;
        let places: Vec<_> = self.items[members.clone()]
            .iter()
            .map(|item| {
                if item.state == State::Done {
                    usize::MAX
                } else {
                    item.next
                }
            })
            .collect();
        if let Some(other) = places.iter().position(|place| *place != places[0]) {
            let (ended, waits) = if places[0] == usize::MAX {
                (0, other)
            } else {
                (other, 0)
            };
            let elsewhere = match places[ended] {
                usize::MAX => "has ended".to_owned(),
                place => format!("waits at [{}]", self.statement(place - 1)),
            };
            let wrong = Wrong::new(
                ViolationKind::Divergence,
                format!("work-item {waits} waits at a barrier, work-item {ended} {elsewhere}"),
            );
            return Err(self.violation(wrong, Some(number * self.group_items + waits)));
        }
        group.waiting = 0;
        self.stats.barriers += 1;
        if let Some((races, _)) = &mut self.races {
            races.barrier(members.clone());
        }
        for member in members {
            self.items[member].state = State::Ready;
            self.ready.push(member);
        }
        Ok(())
    }

    /// The text of an operation's statement.
    fn statement(&self, op: usize) -> &str {
        let origin = self.code.origins.get(op).copied().unwrap_or(0);
        &self.code.statements[origin as usize]
    }

    /// A race, in words.
    pub(super) fn raced(&self, race: &Race, address: u64) -> Wrong {
        let item = race.other.item as usize;
        let (group, local) = (item / self.group_items, item % self.group_items);
        let who = format!("work-item {local} of group {group}");
        race.wrong(address, &who, self.statement(race.other.op as usize))
    }

    pub(super) fn group_of(&self, item: usize) -> usize {
        item / self.group_items
    }

    pub(super) fn operations_max(&self) -> u64 {
        self.schedule.operations_max
    }

    /// With all that is known of the place.
    fn violation(&self, wrong: Wrong, item: Option<usize>) -> Violation {
        let number = |of: usize| u32::try_from(of).unwrap_or(u32::MAX);
        let next = item.map(|item| self.items[item].next.saturating_sub(1));
        Violation {
            kind: wrong.kind,
            kernel: self.code.name.clone(),
            statement: next.map_or(String::new(), |op| self.statement(op).to_owned()),
            item: item.map(|item| (number(item / self.group_items), number(item % self.group_items))),
            address: wrong.address,
            what: wrong.what,
        }
    }
}
