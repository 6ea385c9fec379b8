#include "vitrail/comm/launch.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vitrail/comm/rendezvous.h"
#include "vitrail/core/error.h"

namespace vitrail::comm {
namespace {

using core::CommError;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Table = std::map<std::string, std::string>;

std::function<const char*(const char*)> from(const Table& table) {
  return [&table](const char* variable) {
    const auto entry = table.find(variable);
    return entry == table.end() ? nullptr : entry->second.c_str();
  };
}

void expect(const Table& table, const std::string& launcher, int rank, int size, int local_rank,
            int local_size) {
  const Launch launch = detect_launch(from(table));
  EXPECT_EQ(launch.launcher, launcher);
  EXPECT_EQ(launch.rank, rank);
  EXPECT_EQ(launch.size, size);
  EXPECT_EQ(launch.local_rank, local_rank);
  EXPECT_EQ(launch.local_size, local_size);
  EXPECT_FALSE(launch.host.empty());
}

const Table kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "5"},
                        {"OMPI_COMM_WORLD_SIZE", "8"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                        {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
const Table kSrun = {{"SLURM_JOB_ID", "77"},
                     {"SLURM_STEP_ID", "0"},
                     {"SLURM_PROCID", "3"},
                     {"SLURM_NTASKS", "16"},
                     {"SLURM_STEP_NUM_TASKS", "6"},
                     {"SLURM_LOCALID", "0"},
                     {"SLURM_NODEID", "1"},
                     {"SLURM_STEP_TASKS_PER_NODE", "3(x2)"},
                     {"SLURM_STEP_NODELIST", "node[07-08]"}};
const Table kTorchrun = {{"RANK", "2"},
                         {"WORLD_SIZE", "4"},
                         {"LOCAL_RANK", "0"},
                         {"LOCAL_WORLD_SIZE", "2"},
                         {"MASTER_ADDR", "127.0.0.1"},
                         {"MASTER_PORT", "29500"}};

Table joined(Table one, const Table& other) {
  one.insert(other.begin(), other.end());
  return one;
}

TEST(Launch, NoneIsOneProcess) {
  expect({}, "none", 0, 1, 0, 1);
  EXPECT_THAT(detect_launch(from(Table{})).describe(), HasSubstr("no launcher"));
}

TEST(Launch, ReadsEachLauncher) {
  expect(kOpenMpi, "mpirun", 5, 8, 1, 4);
  expect(kTorchrun, "torchrun", 2, 4, 0, 2);
  expect(kSrun, "srun", 3, 6, 0, 3);
  expect({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}},
         "mpiexec", 1, 2, 1, 2);
  EXPECT_THAT(detect_launch(from(kOpenMpi)).describe(),
              AllOf(HasSubstr("rank 5 of 8 on "), HasSubstr("(local rank 1), started by mpirun")));
}

TEST(Launch, InnermostLauncherWins) {
  expect(joined(kOpenMpi, kSrun), "mpirun", 5, 8, 1, 4);
  expect(joined(kTorchrun, kSrun), "torchrun", 2, 4, 0, 2);
  expect(joined(kOpenMpi, kTorchrun), "mpirun", 5, 8, 1, 4);
  // srun --mpi=pmi2 sets PMI_* as well.
  expect(joined(kSrun, {{"PMI_RANK", "3"}, {"PMI_SIZE", "6"}}), "srun", 3, 6, 0, 3);
  expect(joined(kSrun, {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), "mpiexec", 1, 2, 1, 2);
}

TEST(Launch, AnAllocationAloneStartsNobody) {
  // Inside an sbatch script: a rank and a count but no step.
  expect({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "0"}}, "none", 0, 1, 0,
         1);
  // Newer versions number the batch and interactive steps from above.
  expect({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "4294967291"}}, "none", 0,
         1, 0, 1);
  expect({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_STEP_ID", "4294967290"}}, "none", 0,
         1, 0, 1);
  // mpirun inside it.
  expect(joined(kOpenMpi, {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}), "mpirun", 5, 8, 1, 4);
}

TEST(Launch, RefusesContradictions) {
  const auto refuses = [](Table table, const std::string& variable, const std::string& value,
                          const std::string& text) {
    table[variable] = value;
    EXPECT_THAT([&] { detect_launch(from(table)); }, ThrowsMessage<CommError>(HasSubstr(text)))
        << variable;
  };
  refuses(kOpenMpi, "OMPI_COMM_WORLD_RANK", "8",
          "OMPI_COMM_WORLD_RANK must be below OMPI_COMM_WORLD_SIZE but they are 8 and 8");
  refuses(kOpenMpi, "OMPI_COMM_WORLD_SIZE", "many",
          "OMPI_COMM_WORLD_SIZE must be a whole number >= 0 but is 'many'");
  refuses(kOpenMpi, "OMPI_COMM_WORLD_RANK", "",
          "OMPI_COMM_WORLD_SIZE is set but OMPI_COMM_WORLD_RANK is not");
  refuses(kOpenMpi, "OMPI_COMM_WORLD_LOCAL_RANK", "4",
          "local rank < local size <= 8 but are 4 and 4");
  refuses(kTorchrun, "RANK", "-1", "RANK must be a whole number");
  refuses(kTorchrun, "WORLD_SIZE", "", "RANK is set but WORLD_SIZE is not");
  refuses(kTorchrun, "LOCAL_WORLD_SIZE", "5", "local size <= 4 but are 0 and 5");
  refuses(kTorchrun, "WORLD_SIZE", "4x", "'4x'");
  refuses(kSrun, "SLURM_PROCID", "6", "SLURM_PROCID must be below SLURM_STEP_NUM_TASKS");
  refuses({}, "PMI_RANK", "0", "PMI_RANK is set but PMI_SIZE is not");
}

TEST(Rendezvous, OfTorchrun) {
  const Launch launch = detect_launch(from(kTorchrun));
  Table table = kTorchrun;
  EXPECT_EQ(find_rendezvous(launch, from(table)).port, 29500);
  EXPECT_EQ(find_rendezvous(launch, from(table)).token, "vitrail-29500");
  table["TORCHELASTIC_RUN_ID"] = "none";
  table["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  EXPECT_EQ(find_rendezvous(launch, from(table)).port, 29501);
  table["MASTER_ADDR"] = "node01";
  EXPECT_THAT([&] { find_rendezvous(launch, from(table)); },
              ThrowsMessage<CommError>(HasSubstr("need a job token")));
  table["TORCHELASTIC_RUN_ID"] = "run7";
  EXPECT_EQ(find_rendezvous(launch, from(table)).token, "run7");
  table["VITRAIL_JOB_TOKEN"] = "secret";
  table["VITRAIL_COMM_PORT"] = "4000";
  EXPECT_EQ(find_rendezvous(launch, from(table)).token, "secret");
  EXPECT_EQ(find_rendezvous(launch, from(table)).port, 4000);
  table["VITRAIL_COMM_PORT"] = "70000";
  EXPECT_THAT([&] { find_rendezvous(launch, from(table)); },
              ThrowsMessage<CommError>(HasSubstr("1 ... 65535 but is 70000")));
  table.erase("VITRAIL_COMM_PORT");
  table["MASTER_PORT"] = "";
  EXPECT_THAT([&] { find_rendezvous(launch, from(table)); },
              ThrowsMessage<CommError>(HasSubstr("MASTER_PORT")));
}

TEST(Rendezvous, OfSrunWithoutAnMpiPlugin) {
  const Rendezvous meeting = find_rendezvous(detect_launch(from(kSrun)), from(kSrun));
  EXPECT_EQ(meeting.address, "node07");
  EXPECT_EQ(meeting.token, "slurm-77.0");
  EXPECT_EQ(meeting.port, 15000 + 77 * 131 % 15000);
}

TEST(Rendezvous, FirstHostOfASlurmList) {
  EXPECT_EQ(first_host("node07"), "node07");
  EXPECT_EQ(first_host("node07,node09"), "node07");
  EXPECT_EQ(first_host("node[07-09,12],login1"), "node07");
  EXPECT_EQ(first_host("node[12]"), "node12");
  EXPECT_EQ(first_host("rack[1-2]-gpu"), "rack1-gpu");
  for (const char* broken : {"", "node[", "node[]", "node[a-b]", "node[1-2"})
    EXPECT_THROW(first_host(broken), CommError) << broken;
}

}  // namespace
}  // namespace vitrail::comm
