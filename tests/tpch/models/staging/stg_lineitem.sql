select
    l_orderkey,
    l_linenumber,
    l_quantity,
    l_extendedprice,
    l_discount,
    l_tax,
    l_returnflag,
    l_linestatus,
    l_shipdate,
    l_commitdate,
    l_receiptdate,
    l_shipmode,
    _sdc_deleted_at is not null as is_deleted,
    _tidemark_loaded_xid as loaded_xid
from {{ source('raw', 'lineitem') }}
