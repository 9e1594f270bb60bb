//! The eight tables of TPC-H (TPC Benchmark H, revision 3.0.1, clause 1.4) over the generator crate.

use super::Batches;
use arrow::datatypes::SchemaRef;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

/// One table.
#[derive(Debug)]
enum Table {
    Region,
    Nation,
    Supplier,
    Customer,
    Part,
    Partsupp,
    Orders,
    Lineitem,
}

/// Largest first.
pub(super) const TABLES: [&dyn super::Table; 8] = [
    &Table::Lineitem,
    &Table::Orders,
    &Table::Partsupp,
    &Table::Part,
    &Table::Customer,
    &Table::Supplier,
    &Table::Nation,
    &Table::Region,
];

impl super::Table for Table {
    fn name(&self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Nation => "nation",
            Self::Supplier => "supplier",
            Self::Customer => "customer",
            Self::Part => "part",
            Self::Partsupp => "partsupp",
            Self::Orders => "orders",
            Self::Lineitem => "lineitem",
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self, Self::Region | Self::Nation)
    }

    /// The number of lines of an order is random, so that of lineitem is an estimate.
    fn rows_about(&self, scale: f64) -> u64 {
        let at_one: f64 = match self {
            Self::Region => return 5,
            Self::Nation => return 25,
            Self::Supplier => 10_000.0,
            Self::Customer => 150_000.0,
            Self::Part => 200_000.0,
            Self::Partsupp => 800_000.0,
            Self::Orders => 1_500_000.0,
            Self::Lineitem => 6_000_000.0,
        };
        // A saturating cast: scales are checked to be positive and far below 2^53 rows.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rows = (at_one * scale) as u64;
        rows
    }

    fn batches(&self, scale: f64, part: usize, part_count: usize) -> Batches {
        let part = i32::try_from(part).unwrap_or(i32::MAX);
        let of = i32::try_from(part_count).unwrap_or(i32::MAX);
        match self {
            Self::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, part, of))),
            Self::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, part, of))),
            Self::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, part, of))),
            Self::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, part, of))),
            Self::Part => Box::new(PartArrow::new(PartGenerator::new(scale, part, of))),
            Self::Partsupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, part, of))),
            Self::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale, part, of))),
            Self::Lineitem => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, part, of))),
        }
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::Region => RegionArrow::schema_ref(),
            Self::Nation => NationArrow::schema_ref(),
            Self::Supplier => SupplierArrow::schema_ref(),
            Self::Customer => CustomerArrow::schema_ref(),
            Self::Part => PartArrow::schema_ref(),
            Self::Partsupp => PartSuppArrow::schema_ref(),
            Self::Orders => OrderArrow::schema_ref(),
            Self::Lineitem => LineItemArrow::schema_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Table as _;
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(Table::Lineitem.rows_about(0.5), 3_000_000);
        assert_eq!(Table::Region.rows_about(100.0), 5);
        for table in TABLES {
            let batch = table.batches(0.001, 1, 1).next().unwrap().unwrap();
            assert_eq!(batch.schema(), table.schema(), "{}", table.name());
        }
    }
}
