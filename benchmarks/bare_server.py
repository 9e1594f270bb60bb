"""The yardstick: pyarrow's own Flight server with nothing behind it.

`one` gives one row, `big` the record batches of a Parquet file held in memory, `file` the same file read anew for each
request. Prints its port when it is ready.

    bare_server.py PARQUET
"""

import sys

import pyarrow
import pyarrow.dataset
import pyarrow.flight
import pyarrow.parquet

ONE = pyarrow.table({"Int64(1)": pyarrow.array([1], pyarrow.int64())})


class BareServer(pyarrow.flight.FlightServerBase):
    def __init__(self, parquet):
        super().__init__("grpc+tcp://127.0.0.1:0")
        self.parquet = parquet
        big = pyarrow.parquet.read_table(parquet)
        self.tables = {b"one": ONE, b"big": big, b"file": big}

    def get_flight_info(self, _context, descriptor):
        table = self.tables[descriptor.command]
        endpoint = pyarrow.flight.FlightEndpoint(descriptor.command, [])
        return pyarrow.flight.FlightInfo(table.schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _context, ticket):
        if ticket.ticket == b"file":
            return pyarrow.flight.RecordBatchStream(pyarrow.dataset.dataset(self.parquet).scanner().to_reader())
        return pyarrow.flight.RecordBatchStream(self.tables[ticket.ticket])


def main():
    server = BareServer(sys.argv[1])
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
