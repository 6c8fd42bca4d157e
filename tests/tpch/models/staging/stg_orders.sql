select
    o_orderkey,
    o_custkey,
    o_totalprice,
    o_orderdate,
    o_orderpriority,
    o_shippriority,
    _sdc_deleted_at is not null as is_deleted,
    _tidemark_loaded_xid as loaded_xid
from {{ source('raw', 'orders') }}
