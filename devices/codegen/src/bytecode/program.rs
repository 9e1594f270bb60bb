//! A program whose kernels are data: the same regions, words and launches, with the runner in the place of its kernels.
//!
//! ```text
//!  words:  the program's │ constants │ per kernel: code, start, uniforms, registers, locals, bytes of locals
//! ```

use std::sync::Arc;

use super::code::{Bytecode, Entry};
use super::runner::{runner, word};
use crate::lower::Unsupported;
use crate::program::{Fill, Groups, Launch, Lifetime, Program, Region, Word};
use crate::shape::RegionRef;

/// Words that tell the runner where a kernel's data lie.
pub const HEADER_WORDS: u32 = word::COUNT;

/// Memory for work-items' registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes at most; with fewer groups kernels take longer.
    pub bytes: u64,
    /// Groups at most.
    pub groups: u32,
}

/// The program as data for [`runner`], in so much memory.
///
/// # Errors
/// When it has more registers or constants than an instruction can name, or one group's don't fit.
pub fn interpreted(program: &Program, room: Room) -> Result<Program, Unsupported> {
    let bytecode = Bytecode::new(&program.module, program.words.len())?;
    let group = u64::from(bytecode.group);
    let most = |of: fn(&Entry) -> u64| bytecode.entries.iter().map(of).max().unwrap_or(0);
    let registers = most(|entry| u64::from(entry.registers)) * group * 8;
    let locals = most(|entry| entry.local_bytes);
    let groups = (room.bytes / (registers + locals)).min(u64::from(room.groups.max(1)));
    if groups == 0 {
        return Err(Unsupported(format!(
            "{} bytes of registers for one group are more than the {} that interpreted kernels may take",
            registers + locals,
            room.bytes
        )));
    }
    let mut made = program.clone();
    made.module = runner(bytecode.group);
    let mut region = |name: &str, bytes: u64| {
        made.regions.push(Region {
            name: name.to_owned(),
            bytes,
            fill: Fill::Nothing,
            lifetime: Lifetime::Scratch,
        });
        RegionRef {
            fragment: program.status.fragment,
            region: made.regions.len() - 1,
        }
    };
    let (registers, local_memory) = (
        region("registers", registers * groups),
        region("local memory", (locals * groups).max(8)),
    );
    made.words
        .extend(bytecode.constants.iter().map(|word| Word::Value(*word)));
    made.tables.push(
        bytecode
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Arc<[u8]>>(),
    );
    let code = made.tables.len() - 1;
    let headers = made.words.len() as u64;
    for entry in &bytecode.entries {
        made.words.extend([
            Word::Table(code),
            Word::Value(u64::from(entry.start)),
            Word::Block,
            Word::Region(registers, 0),
            Word::Region(local_memory, 0),
            Word::Value(locals),
        ]);
    }
    for launch in &mut made.launches {
        *launch = Launch {
            kernel: 0,
            groups: match launch.groups {
                Groups::One => Groups::One,
                Groups::Rows(rows) => Groups::Rows(rows.min(groups * group)),
            },
            when: launch.when,
            block: headers + launch.kernel as u64 * u64::from(HEADER_WORDS),
        };
    }
    Ok(made)
}

/// Instructions of the longest kernel that runs for rows: what a row takes, about, where it passes through once.
pub fn instructions(program: &Program) -> u64 {
    program.tables.last().map_or(0, |code| code.len() as u64 / 16)
}
