select
    c_custkey,
    c_name,
    c_address,
    c_nationkey,
    c_phone,
    c_acctbal,
    c_mktsegment,
    c_comment,
    _sdc_deleted_at is not null as is_deleted,
    _tidemark_loaded_xid as loaded_xid
from {{ source('raw', 'customer') }}
