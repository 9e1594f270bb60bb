//! The 24 tables of TPC-DS (TPC Benchmark DS, clause 2) over the generator crate; `dbgen_version`, which says when and how the
//! official tool was run, is not among them.

use super::Batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tpcdsgen::config::{Session, SessionBuilder, Table as Name};
use tpcdsgen_arrow::{
    CallCenterArrow, CatalogPageArrow, CatalogReturnsArrow, CatalogSalesArrow, CustomerAddressArrow, CustomerArrow,
    CustomerDemographicsArrow, DateDimArrow, HouseholdDemographicsArrow, IncomeBandArrow, InventoryArrow, ItemArrow,
    PromotionArrow, ReasonArrow, ShipModeArrow, StoreArrow, StoreReturnsArrow, StoreSalesArrow, TimeDimArrow,
    WarehouseArrow, WebPageArrow, WebReturnsArrow, WebSalesArrow, WebSiteArrow,
};

/// One table.
struct Table {
    name: Name,
    /// Tables that grow slowly, or whose rows go on from the row before, are made as a whole.
    is_whole: bool,
    /// Rows for each row that the generator counts: of sales and returns it counts the orders.
    rows_each: f64,
    schema: fn() -> SchemaRef,
    /// The rows `from..=to`, from 1, counted as the generator does.
    rows: fn(Session, u64, u64) -> Batches,
}

macro_rules! table {
    ($name:ident, $reader:ident, $is_whole:expr, $rows_each:expr) => {
        &Table {
            name: Name::$name,
            is_whole: $is_whole,
            rows_each: $rows_each,
            schema: $reader::schema_ref,
            rows: |session, from, to| Box::new($reader::new(session).with_source_row_range(from, to)),
        }
    };
}

/// The longest to make first.
pub(super) const TABLES: [&dyn super::Table; 24] = [
    table!(StoreSales, StoreSalesArrow, false, 12.0),
    table!(CatalogSales, CatalogSalesArrow, false, 9.0),
    table!(Inventory, InventoryArrow, false, 1.0),
    table!(WebSales, WebSalesArrow, false, 12.0),
    table!(StoreReturns, StoreReturnsArrow, false, 1.2),
    table!(CatalogReturns, CatalogReturnsArrow, false, 0.9),
    table!(CustomerDemographics, CustomerDemographicsArrow, false, 1.0),
    table!(WebReturns, WebReturnsArrow, false, 1.2),
    table!(Customer, CustomerArrow, false, 1.0),
    table!(CustomerAddress, CustomerAddressArrow, false, 1.0),
    table!(Item, ItemArrow, true, 1.0),
    table!(TimeDim, TimeDimArrow, true, 1.0),
    table!(DateDim, DateDimArrow, true, 1.0),
    table!(CatalogPage, CatalogPageArrow, true, 1.0),
    table!(HouseholdDemographics, HouseholdDemographicsArrow, true, 1.0),
    table!(Promotion, PromotionArrow, true, 1.0),
    table!(Store, StoreArrow, true, 1.0),
    table!(WebPage, WebPageArrow, true, 1.0),
    table!(CallCenter, CallCenterArrow, true, 1.0),
    table!(WebSite, WebSiteArrow, true, 1.0),
    table!(Reason, ReasonArrow, true, 1.0),
    table!(Warehouse, WarehouseArrow, true, 1.0),
    table!(ShipMode, ShipModeArrow, true, 1.0),
    table!(IncomeBand, IncomeBandArrow, true, 1.0),
];

impl super::Table for Table {
    fn name(&self) -> &'static str {
        self.name.get_name()
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn rows_about(&self, scale: f64) -> u64 {
        // A scale that the generator refuses is refused where rows are made.
        let rows = session(scale).map_or(0, |session| session.get_scaling().get_row_count(self.name));
        // A saturating cast of far less than 2^53 rows.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rows = (rows as f64 * self.rows_each) as u64;
        rows
    }

    fn batches(&self, scale: f64, part: usize, part_count: usize) -> Batches {
        let session = match session(scale) {
            Ok(session) => session,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let rows = u128::from(session.get_scaling().get_row_count(self.name));
        let until = |part: usize| u64::try_from(rows * part as u128 / part_count as u128).unwrap_or(u64::MAX);
        (self.rows)(session, until(part - 1) + 1, until(part))
    }

    fn schema(&self) -> SchemaRef {
        (self.schema)()
    }
}

fn session(scale: f64) -> Result<Session, ArrowError> {
    let session = SessionBuilder::new().with_scale_factor(scale).build();
    session.map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::concat_batches;
    use arrow::record_batch::RecordBatch;

    fn part(table: &dyn super::super::Table, part: usize, of: usize) -> RecordBatch {
        let batches: Vec<_> = table.batches(0.01, part, of).map(Result::unwrap).collect();
        concat_batches(&table.schema(), &batches).unwrap()
    }

    #[test]
    fn a_table_of_parts_is_the_table() {
        for table in TABLES {
            // By far the largest at this scale, and its rows depend on their number only.
            if table.is_whole() || table.name() == "customer_demographics" {
                continue;
            }
            let whole = part(table, 1, 1);
            let parts: Vec<_> = (1..=3).map(|number| part(table, number, 3)).collect();
            assert!(parts.iter().all(|part| part.num_rows() > 0), "{}", table.name());
            assert_eq!(
                concat_batches(&table.schema(), &parts).unwrap(),
                whole,
                "{}",
                table.name()
            );
        }
    }

    #[test]
    fn names_and_sizes() {
        for table in TABLES {
            let batch = table.batches(0.001, 1, 1).next().unwrap().unwrap();
            assert_eq!(batch.schema(), table.schema(), "{}", table.name());
            assert!(table.rows_about(0.001) > 0, "{}", table.name());
            assert!(
                !table.is_whole() || table.rows_about(100_000.0) < 1 << 20,
                "{}",
                table.name()
            );
        }
        let rows = |name| {
            TABLES
                .iter()
                .find(|table| table.name() == name)
                .unwrap()
                .rows_about(1.0)
        };
        assert_eq!(rows("customer"), 100_000);
        assert_eq!(rows("inventory"), 11_745_000);
        assert_eq!(rows("store_sales"), 2_880_000);
    }

    #[test]
    fn a_part_without_rows_is_empty() {
        let customers = TABLES.iter().find(|table| table.name() == "customer").unwrap();
        assert_eq!(customers.rows_about(0.001), 1000);
        assert_eq!(part(*customers, 1, 10_000).num_rows(), 0);
        assert_eq!(part(*customers, 10_000, 10_000).num_rows(), 1);
    }
}
