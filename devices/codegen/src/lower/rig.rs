//! For tests: whole graphs over tables of integers, lowered and interpreted under a drawn schedule.

use trireme_device_api::{
    DeviceColumn, DeviceError, Expr, Field, GRAPH_VERSION, Graph, ScanSource, Type, Value as Constant,
};

use super::{Bound, BuildShape, Hints, Host, Input, Target, lower};
use crate::bytecode::{Room, interpreted};
use crate::interpreter::{Code, Machine, Random, Schedule};
use crate::ir::Elem;
use crate::program::{Fault, Fill, Groups, Program, ProgramOutput, STATUS_LARGE, STATUS_WORDS, When, Word};
use crate::shape::{ColumnShape, RegionRef, ResidentRows, ScanShape, Storage};

/// For programs that run as data.
const ROOM: Room = Room {
    bytes: 1 << 20,
    groups: 3,
};

/// Rows of integers, NULL where there is none.
pub(crate) type Rows = Vec<Vec<Option<i64>>>;

/// A table of Int64 columns.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) columns: usize,
    pub(crate) rows: Rows,
}

impl Table {
    fn nullable(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row[column].is_none())
    }

    pub(crate) fn fields(&self) -> Vec<Field> {
        let field = |column: usize| Field {
            name: format!("c{column}"),
            data_type: Type::Int64,
            nullable: self.nullable(column),
        };
        (0..self.columns).map(field).collect()
    }

    fn shape(&self) -> ScanShape {
        let column = |column: usize| {
            let values = self.rows.iter().filter_map(|row| row[column].map(i128::from));
            let range = values.clone().min().zip(values.max());
            ColumnShape {
                data_type: Type::Int64,
                storage: Storage::Integer(Elem::I64),
                nullable: self.nullable(column),
                range: range.or(Some((0, 0))),
                dictionary: None,
                clustered: false,
            }
        };
        ScanShape {
            columns: (0..self.columns).map(column).collect(),
            rows: self.rows.len() as u64,
            segments: u64::MAX,
        }
    }

    /// The segment table: up to so many rows to a segment.
    fn upload(&self, machine: &mut Machine, segment_rows: usize, tile_rows: u64) -> u64 {
        let segments: Vec<&[Vec<Option<i64>>]> = self.rows.chunks(segment_rows).collect();
        let (mut words, mut tiles) = (vec![segments.len() as u64, 0], 0);
        for rows in segments {
            words.extend([rows.len() as u64, tiles]);
            tiles += (rows.len() as u64).div_ceil(tile_rows);
            for column in 0..self.columns {
                let base = 3_i64;
                let values = rows.iter().map(|row| row[column].unwrap_or_else(|| self.any(column)));
                let values: Vec<u64> = values.map(|value| value.wrapping_sub(base).cast_unsigned()).collect();
                let at = machine.place(values.len() as u64 * 8).unwrap();
                machine.write_words(at, &values).unwrap();
                let mut validity = 0;
                if rows.iter().any(|row| row[column].is_none()) {
                    let mut bits = vec![0_u8; rows.len().div_ceil(8)];
                    for (index, row) in rows.iter().enumerate() {
                        bits[index / 8] |= u8::from(row[column].is_some()) << (index % 8);
                    }
                    validity = machine.place(bits.len() as u64).unwrap();
                    machine.write(validity, &bits).unwrap();
                }
                words.extend([at, base.cast_unsigned(), validity, 0]);
            }
        }
        words[1] = tiles;
        let at = machine.place(words.len() as u64 * 8).unwrap();
        machine.write_words(at, &words).unwrap();
        at
    }

    /// What stands where there is no value: something in range.
    fn any(&self, column: usize) -> i64 {
        self.rows.iter().find_map(|row| row[column]).unwrap_or(0)
    }
}

/// A graph over tables; the fragments are added by the test.
pub(crate) fn graph(tables: &[Table]) -> Graph {
    Graph {
        version: GRAPH_VERSION,
        fragments: Vec::new(),
        scans: tables
            .iter()
            .map(|table| ScanSource {
                name: "t".to_owned(),
                columns: table.fields(),
            })
            .collect(),
        streams: Vec::new(),
        parameters: Vec::new(),
        output: Vec::new(),
    }
}

/// Evaluates nothing.
pub(crate) struct NoHost;

impl Host for NoHost {
    fn evaluate(&self, _: &Expr, _: &DeviceColumn, _: &[Constant]) -> Result<DeviceColumn, DeviceError> {
        Err(DeviceError::Internal("no host".to_owned()))
    }
}

/// What came of a graph.
pub(crate) struct Ran {
    /// The last fragment's rows.
    pub(crate) rows: Rows,
    /// Runs of all fragments, those anew for want of capacity among them.
    pub(crate) runs: u32,
    /// Build sides.
    pub(crate) builds: Vec<BuildShape>,
    /// Launches, each under a schedule of its own.
    pub(crate) schedules: u32,
    /// Programs that put rows in order, and those that say that it would be worth it.
    pub(crate) ordered: u32,
    pub(crate) large: u32,
}

/// Runs all fragments.
pub(crate) fn run(graph: &Graph, tables: &[Table], target: Target, seed: u64) -> Ran {
    let scans: Vec<ScanShape> = tables.iter().map(Table::shape).collect();
    let mut rig = Rig {
        machine: Machine::new(8 << 20),
        places: Vec::new(),
        random: Random::new(seed),
        seed,
        large: 0,
    };
    let mut outputs: Vec<Option<Input>> = Vec::new();
    let (mut runs, mut builds, mut schedules, mut ordered) = (0, Vec::new(), 0, 0);
    for fragment in 0..graph.fragments.len() {
        let mut hints = Hints {
            partition: (seed % 4 == 1).then_some(u64::MAX),
            ..Hints::default()
        };
        let output = loop {
            runs += 1;
            let bound = Bound {
                scans: &scans,
                streams: &[],
                outputs: &outputs,
                parameters: &[],
                host: &NoHost,
                hints,
            };
            let program = lower(graph, fragment, &bound, target).unwrap();
            schedules += u32::try_from(program.launches.len()).unwrap();
            ordered += u32::from(program.module.kernels.iter().any(|kernel| kernel.name == "scatter"));
            match rig.run(&program, graph, fragment, tables) {
                Some(needed) => hints.capacity = Some(needed),
                None => break program.output,
            }
        };
        outputs.push(Some(match output {
            ProgramOutput::Rows(rows) => Input::Resident(rows),
            ProgramOutput::Build(shape) => {
                builds.push(shape.clone());
                Input::Build(shape)
            }
        }));
    }
    match outputs.pop().flatten() {
        Some(Input::Resident(rows)) => Ran {
            rows: rig.read(&rows),
            runs,
            builds,
            schedules,
            ordered,
            large: rig.large,
        },
        _ => panic!("the last fragment leaves no rows"),
    }
}

struct Rig {
    machine: Machine,
    /// By fragment and region.
    places: Vec<Vec<u64>>,
    random: Random,
    seed: u64,
    /// Programs whose tables were large.
    large: u32,
}

impl Rig {
    fn place(&self, region: RegionRef) -> u64 {
        self.places[region.fragment][region.region]
    }

    /// Runs a program; what a table that was too small would have needed.
    fn run(&mut self, program: &Program, graph: &Graph, fragment: usize, tables: &[Table]) -> Option<u64> {
        let data;
        let mut program = program;
        if self.seed % 16 == 7 {
            data = interpreted(program, ROOM).unwrap();
            program = &data;
        }
        self.places.truncate(fragment);
        self.places.push(Vec::new());
        for region in &program.regions {
            let bytes = region.bytes.next_multiple_of(8);
            let at = self.machine.place(bytes).unwrap();
            match region.fill {
                Fill::Nothing => {}
                Fill::Byte(byte) => self.machine.fill(at, bytes, u64::from_le_bytes([byte; 8])).unwrap(),
                Fill::Word(word) => self.machine.fill(at, bytes, word).unwrap(),
            }
            self.places[fragment].push(at);
        }
        let segments = match graph.fragments[fragment].source {
            trireme_device_api::Source::Scan(scan) => {
                let segment_rows = 1 + self.random.below(40);
                tables[scan].upload(&mut self.machine, segment_rows, program.tile_rows)
            }
            _ => 0,
        };
        let block = self.machine.place(program.words.len() as u64 * 8 + 8).unwrap();
        let words: Vec<u64> = program
            .words
            .iter()
            .map(|word| self.word(program, *word, segments, block))
            .collect();
        self.machine.write_words(block, &words).unwrap();
        let code = Code::new(&program.module).unwrap();
        for when in [When::Before, When::Chunk, When::After] {
            for launch in program.launches.iter().filter(|launch| launch.when == when) {
                let groups = match launch.groups {
                    Groups::One => 1,
                    Groups::Rows(_) => [1, 2, 3][self.random.below(3)],
                };
                let schedule = Schedule::seeded(self.random.draw());
                let block = block + launch.block * 8;
                let stats = self.machine.run(&code, launch.kernel, groups, block, &schedule);
                stats.unwrap_or_else(|wrong| panic!("seed {}, fragment {fragment}: {wrong}", self.seed));
            }
        }
        let words = STATUS_WORDS as u64;
        let status = self.machine.read_words(self.place(program.status), words).unwrap();
        self.large += u32::from(status[STATUS_LARGE] != 0);
        if status[0] == 0 {
            return None;
        }
        assert_eq!(program.faults, [Fault::Capacity], "seed {}", self.seed);
        Some(status[1])
    }

    fn word(&mut self, program: &Program, word: Word, segments: u64, block: u64) -> u64 {
        match word {
            Word::Value(value) => value,
            Word::Region(region, more) => self.place(region) + more,
            Word::Segments => segments,
            Word::Block => block,
            Word::Table(table) => {
                let content = &program.tables[table];
                let at = self.machine.place(content.len() as u64).unwrap();
                self.machine.write(at, content).unwrap();
                at
            }
        }
    }

    fn read(&self, rows: &ResidentRows) -> Rows {
        let count = self.machine.read_words(self.place(rows.count), 1).unwrap()[0];
        assert!(
            count <= rows.bound,
            "seed {}: {count} rows, bound {}",
            self.seed,
            rows.bound
        );
        let value = |column: &crate::shape::ResidentColumn, row: u64| {
            let at = column.values?;
            if let Some(validity) = column.validity
                && self.machine.read(self.place(validity) + row, 1).unwrap() == [0]
            {
                return None;
            }
            let elem = match column.shape.storage {
                Storage::Integer(elem) => elem,
                Storage::Bytes => Elem::U8,
                other => panic!("not read here: {other:?}"),
            };
            let bytes = u64::from(elem.bytes());
            let raw = self.machine.read(self.place(at) + row * bytes, bytes).unwrap();
            let mut wide = [if raw[raw.len() - 1] & 0x80 != 0 { 0xff } else { 0 }; 8];
            wide[..raw.len()].copy_from_slice(raw);
            Some(i64::from_le_bytes(wide))
        };
        let row = |row: u64| rows.columns.iter().map(|column| value(column, row)).collect();
        (0..count).map(row).collect()
    }
}
