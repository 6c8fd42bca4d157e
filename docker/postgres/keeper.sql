-- The role that dumps and restores the warehouse: it reads everything, creates databases, and sets table owners. It is not
-- a superuser.
CREATE ROLE tidemark_keeper LOGIN CREATEDB;
GRANT pg_read_all_data, tidemark_loader, tidemark_transformer TO tidemark_keeper;
ALTER DATABASE warehouse OWNER TO tidemark_keeper;
